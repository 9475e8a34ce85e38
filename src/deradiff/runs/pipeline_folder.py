"""A pipeline from a folder in diffusers' layout, of which every network has all its weights."""

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
from deradiff.errors import ConfigError
from deradiff.reading import read_object

_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_folder(folder: Path, variant: str | None, dtype: torch.dtype) -> Any:
    """The pipeline; of each part the plain weights, or the variant that is there alone.

    Args:
        folder: with a ``model_index.json``.
        variant: to take where a part has it; at least one must.
        dtype: of its weights.

    Raises:
        AnchorError: a network can't be read, or lacks weights; no part has the variant.
    """
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir() and (part / "config.json").is_file()]
    names = {part: [file.name for file in part.iterdir()] for part in parts}
    if variant is None:
        variants = {part: choose_variant(names[part], str(part)) for part in parts}
    else:
        choose_variant([name for of_part in names.values() for name in of_part], str(folder), variant)
        variants = {
            part: variant if variant in variants_in(names[part]) else choose_variant(names[part], str(part))
            for part in parts
        }
    kinds = _network_classes(folder)
    networks = {
        part.name: load_pretrained(kinds[part.name], part, dtype, variants[part])
        for part in parts
        if part.name in kinds
    }
    shared = next(filter(None, reversed(variants.values())), None)  # for parts that are a pipeline's own classes
    return DiffusionPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, variant=shared, **networks
    )


def _network_classes(folder: Path) -> dict[str, type]:
    """Classes of a pipeline's networks that are diffusers' or transformers', by the names of their folders."""
    index = read_object(folder / "model_index.json", "the model index", ConfigError)
    named = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    kinds = {name: getattr(_LIBRARIES.get(library), str(kind), None) for name, (library, kind) in named.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, ModelMixin | PreTrainedModel)
    }
