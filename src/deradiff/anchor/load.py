"""From a recognised source to a held anchor, with everything undone where that fails half-way."""

import copy
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from safetensors.torch import load_file
from torch import nn

from deradiff.anchor.adapters import adapter_layers, adapter_names, peft_metadata, remove_adapter, unchanged_otherwise
from deradiff.anchor.check import check_same_network, check_same_schedule
from deradiff.anchor.module_tree import weights_of
from deradiff.anchor.source import Kind, Source
from deradiff.errors import AnchorError

_fresh_names = (f"deradiff_{number}" for number in itertools.count())


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One aligned model of one denoiser: a network of its own, or an adapter on the denoiser.

    Attributes:
        name: its key among several anchors.
        module: the separate network, or None.
        adapter: the adapter's name on the denoiser, or None; with a module too where it is merged into that.
        card: what it says of itself.
        undo: leaves the denoiser and the network as they were.
    """

    name: str
    module: nn.Module | None = None
    adapter: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    undo: Callable[[], object]


def hold_module(name: str, denoiser: nn.Module, module: nn.Module, component: str, card: Mapping[str, Any]) -> Anchor:
    """Hold a network given by the user, of which only the weights are used; ``undo`` brings them home."""
    check_same_network(denoiser, module, component)
    device = next(module.parameters()).device
    return Anchor(name=name, module=module, card=card, undo=lambda: module.to(device))


def hold_adapter(name: str, adapter: str) -> Anchor:
    """Hold a LoRA that the user has loaded; it stays loaded."""
    return Anchor(name=name, adapter=adapter, undo=lambda: None)


def load_network(name: str, denoiser: nn.Module, source: Source, component: str, schedule: Mapping[str, Any]) -> Anchor:
    """Load a full checkpoint beside the denoiser.

    Raises:
        AnchorError: unreadable, another architecture, or trained on another noise schedule.
    """
    check_same_schedule(schedule, source.scheduler)
    parameter = next(denoiser.parameters())
    folder = source.path / component if source.kind is Kind.PIPELINE else source.path
    config = json.loads((folder / "config.json").read_text())
    actual, expected = config.get("_class_name"), type(denoiser).__name__
    if actual != expected:
        raise AnchorError(f"{folder} holds a {actual}, but {component} is a {expected}; both must be the same")
    halves = list(folder.glob("*.fp16.safetensors"))
    variant = "fp16" if halves and len(halves) == len(list(folder.glob("*.safetensors"))) else None
    try:
        module, info = type(denoiser).from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]  (ModelMixin)
            folder,
            dtype=parameter.dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise AnchorError(f"{folder} can't be loaded as a {expected} from safetensors: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise AnchorError(f"{folder} lacks {len(missing)} weights of a {expected} ({missing[0]}, ...): fetch it again")
    return hold_module(name, denoiser, module.to(parameter.device), component, source.card)


def load_lora(name: str, pipe: Any, denoiser: nn.Module, source: Source, component: str) -> Anchor:
    """Load a LoRA onto the denoiser under a name of our own, without touching what is active.

    Raises:
        AnchorError: it doesn't fit the denoiser, or aligns another part of the pipeline too.
    """
    adapter = next(_fresh_names)
    undo = partial(remove_adapter, denoiser, adapter, peft_metadata(denoiser))
    with unchanged_otherwise(denoiser):
        try:
            _read_lora(pipe, denoiser, source, component, adapter)
        except (ValueError, RuntimeError, KeyError, OSError, TypeError) as error:
            undo()
            raise AnchorError(f"the LoRA {source.path} doesn't fit {component}: {error}") from error
    if adapter not in adapter_names(denoiser):
        undo()
        raise AnchorError(f"the LoRA {source.path} holds no weights for {component}")
    return Anchor(name=name, adapter=adapter, card=source.card, undo=undo)


def _read_lora(pipe: Any, denoiser: nn.Module, source: Source, component: str, adapter: str) -> None:
    config = source.path.with_name("adapter_config.json")
    if config.is_file():  # PEFT's own layout
        weights = {k.removeprefix("base_model.model."): v for k, v in load_file(source.path).items()}
        metadata = {k: v for k, v in json.loads(config.read_text()).items() if v is not None}
        denoiser.load_lora_adapter(weights, prefix=None, adapter_name=adapter, metadata=metadata)  # pyright: ignore[reportCallIssue]
    elif hasattr(pipe, "load_lora_weights"):
        file = {"weight_name": source.path.name, "use_safetensors": True, "local_files_only": True}
        loaded = pipe.lora_state_dict(source.path.parent, **file)
        weights = loaded[0] if isinstance(loaded, tuple) else loaded
        others = sorted({key.split(".")[0] for key in weights if key.startswith("text_encoder")})
        if others:
            raise ValueError(f"it also aligns {', '.join(others)}, which runs once and can't be mixed step by step")
        second = {"load_into_transformer_2": True} if component == "transformer_2" else {}
        with _only_errors("diffusers.loaders"):  # it warns of every part that the LoRA leaves alone
            pipe.load_lora_weights(source.path.parent, adapter_name=adapter, **file, **second)
    elif hasattr(denoiser, "load_lora_adapter"):
        weights = load_file(source.path)
        prefix = component if any(key.startswith(f"{component}.") for key in weights) else None
        denoiser.load_lora_adapter(weights, prefix=prefix, adapter_name=adapter)  # pyright: ignore[reportCallIssue]
    else:
        raise TypeError(f"{type(denoiser).__name__} takes no LoRA in diffusers; give a full checkpoint")


@contextmanager
def _only_errors(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def merge_adapter(anchor: Anchor, denoiser: nn.Module) -> Anchor:
    """A LoRA anchor as a network of its own: a copy of the denoiser with the LoRA merged into its weights."""
    if anchor.adapter is None:
        return anchor
    module = copy.deepcopy(denoiser)
    for layer in adapter_layers(module, anchor.adapter):
        layer.merge(adapter_names=[anchor.adapter])
    return replace(anchor, module=module)


def distance(denoiser: nn.Module, module: nn.Module) -> float:
    """Relative distance of two networks' weights, ||a - r|| / ||r||: small for an anchor and its own reference."""
    reference, change, size = weights_of(denoiser), 0.0, 0.0
    for name, value in weights_of(module).items():
        base = reference[name].detach().float()
        change += float((value.detach().to(base.device).float() - base).square().sum())
        size += float(base.square().sum())
    return (change / size) ** 0.5 if size else 0.0
