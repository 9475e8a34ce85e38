"""A pipeline from a folder in diffusers' layout, of which every network has all its weights."""

import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import PreTrainedModel

from deradiff.anchor.pretrained import load_pretrained
from deradiff.anchor.source import choose_variant, variants_in
from deradiff.errors import ConfigError, abbreviate
from deradiff.reading import read_object

_LOADERS: tuple[Any, ...] = (ModelMixin.from_pretrained.__func__, PreTrainedModel.from_pretrained.__func__)
_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_folder(folder: Path, variant: str | None, dtype: torch.dtype) -> Any:
    """The pipeline; of each part the plain weights, or the variant that is there alone.

    Args:
        folder: with a ``model_index.json``.
        variant: to take where a part has it; at least one must.
        dtype: of its weights.

    Raises:
        ConfigError: the index is no pipeline's, or a part isn't there.
        AnchorError: a network can't be read, or lacks weights; no part has the variant.
    """
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir() and (part / "config.json").is_file()]
    names = {part: [file.name for file in part.iterdir()] for part in parts}
    if variant is not None:
        choose_variant([name for of_part in names.values() for name in of_part], str(folder), variant)
    variants = {
        part: variant if variant in variants_in(names[part]) else choose_variant(names[part], str(part))
        for part in parts
    }
    index = read_object(folder / "model_index.json", "the model index", ConfigError)
    without = _check_parts(folder, index)
    kinds = _network_classes(index)
    networks = {
        part.name: load_pretrained(kinds[part.name], part, dtype, variants[part])
        for part in parts
        if part.name in kinds
    }
    shared = next(filter(None, reversed(variants.values())), None)  # for parts that are a pipeline's own classes
    return DiffusionPipeline.from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, local_files_only=True, variant=shared, **networks, **without
    )


def _check_parts(folder: Path, index: Mapping[str, Any]) -> dict[str, None]:
    """Check that a pipeline's parts are there; returns the text encoders and tokenizers that it was saved without.

    Raises:
        ConfigError: the index names no pipeline of diffusers, or one of its parts isn't there.
    """
    file, name = folder / "model_index.json", index.get("_class_name")
    kind: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, DiffusionPipeline):
        raise ConfigError(
            f"{file} names the class {name!r}, which is no pipeline of diffusers {diffusers.__version__}: fetch it "
            "again, or install the version that has it"
        )
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    expected = {one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}
    required = expected - set(getattr(kind, "_optional_components", ()))
    missing = {part for part in expected if index.get(part) in (None, [None, None])}
    absent = missing & {*required, *map(_tokenizer_of, _encoders(expected - missing))}
    encoders = _encoders(absent)
    of_text = encoders | absent & {_tokenizer_of(name) for name in encoders}
    if _encoders(required - absent):  # a large one may be left out
        absent -= of_text
    if absent:
        raise ConfigError(f"{file} names no {', '.join(sorted(absent))}, which a {name} needs: save it with all parts")
    for part in sorted(expected - missing):
        entry = index[part]
        if not isinstance(entry, list) or len(entry) != 2:
            raise ConfigError(f"{file} has {part}: {abbreviate(str(entry))}; expected [library, class]: fetch it again")
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise ConfigError(f"{folder} has nothing in {part}, which its model_index.json names: fetch it again")
    return dict.fromkeys(of_text)


def _encoders(parts: Collection[str]) -> set[str]:
    return {part for part in parts if part.startswith("text_encoder")}


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _network_classes(index: Mapping[str, Any]) -> dict[str, type]:
    """Classes of a pipeline's networks that are diffusers' or transformers', by the names of their folders."""
    named = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    kinds = {name: getattr(_LIBRARIES.get(str(library)), str(kind), None) for name, (library, kind) in named.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type)
        and issubclass(kind, ModelMixin | PreTrainedModel)
        and kind.from_pretrained.__func__ in _LOADERS  # else it reads several folders, or others than these
    }
