"""From a recognised source to a held anchor, with everything undone where that fails half-way."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from deradiff.anchor.adapters import adapter_layers
from deradiff.anchor.check import check_same_network, check_same_schedule, check_swappable, quantised_weight
from deradiff.anchor.lora import check_finite, in_short, load_lora, read_tensors
from deradiff.anchor.module_tree import ModuleTree, plain_name, weights_of
from deradiff.anchor.pretrained import load_pretrained
from deradiff.anchor.source import Kind, Source
from deradiff.errors import AnchorError
from deradiff.reading import read_object


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One aligned model of one denoiser: a network of its own, or an adapter on the denoiser.

    Attributes:
        name: its key among several anchors.
        module: the separate network, or None.
        adapter: the adapter's name on the denoiser, or None; with a module too where it is merged into that.
        card: what it says of itself.
        path: of the file that an adapter was loaded from; None where the user loaded it.
        undo: leaves the denoiser and the network as they were.
    """

    name: str
    module: nn.Module | None = None
    adapter: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    undo: Callable[[], object]


def hold_module(name: str, denoiser: nn.Module, module: nn.Module, component: str, card: Mapping[str, Any]) -> Anchor:
    """Hold a network given by the user, of which only the weights are used; ``undo`` brings them home."""
    check_swappable(ModuleTree(denoiser))
    check_same_network(denoiser, module, component)
    check_finite(weights_of(module), "the anchor")
    device = next(module.parameters()).device
    return Anchor(name=name, module=module, card=card, undo=lambda: module.to(device))


def hold_adapter(name: str, adapter: str) -> Anchor:
    """Hold a LoRA that the user has loaded; it stays loaded."""
    return Anchor(name=name, adapter=adapter, undo=lambda: None)


def hold_lora(name: str, pipe: Any, denoiser: nn.Module, source: Source, component: str) -> Anchor:
    """Load a LoRA onto the denoiser.

    Raises:
        AnchorError: as :func:`load_lora`, or under layerwise casting, which would leave its layers in float8.
    """
    if ModuleTree(denoiser).casts_weights:
        raise AnchorError(
            f"a LoRA can't be loaded while {component} casts its weights layer by layer: load it first with "
            f"pipe.load_lora_weights, then call pipe.{component}.enable_layerwise_casting, and give the LoRA's name"
        )
    adapter, undo = load_lora(pipe, denoiser, source.path, component)
    return Anchor(name=name, adapter=adapter, card=source.card, path=source.path, undo=undo)


def load_network(name: str, denoiser: nn.Module, source: Source, component: str, schedule: Mapping[str, Any]) -> Anchor:
    """Load a full checkpoint beside the denoiser.

    Raises:
        AnchorError: unreadable, another architecture, or trained on another noise schedule.
    """
    check_same_schedule(schedule, source.scheduler)
    if quantised := quantised_weight(denoiser):
        raise AnchorError(
            f"{component} is quantised ({quantised}), and {source.path} would be loaded as it is: give the anchor as a "
            "LoRA (deradiff extract-lora makes one), or load it quantised alike and give the network"
        )
    parameter = next(denoiser.parameters())
    if source.kind is Kind.SINGLE_FILE:
        module = _from_single_file(denoiser, source.path, parameter.dtype)
    else:
        folder = source.path / component if source.kind is Kind.PIPELINE else source.path
        module = _from_folder(denoiser, folder, source.variant, component, parameter.dtype)
    return hold_module(name, denoiser, module.to(parameter.device), component, source.card)


def _from_folder(
    denoiser: nn.Module, folder: Path, variant: str | None, component: str, dtype: torch.dtype
) -> nn.Module:
    config = read_object(folder / "config.json", "the config", AnchorError)
    actual, expected = config.get("_class_name"), type(denoiser).__name__
    if actual != expected:
        raise AnchorError(f"{folder} holds a {actual}, but {component} is a {expected}; both must be the same")
    return load_pretrained(type(denoiser), folder, dtype, variant)


def _from_single_file(denoiser: Any, path: Path, dtype: torch.dtype) -> nn.Module:
    """A checkpoint in one file, in diffusers' names or the original ones of Stable Diffusion and kin."""
    weights, _ = read_tensors(path)
    expected = {plain_name(name) for name in weights_of(denoiser)}
    if set(weights) <= expected | set(denoiser.state_dict()) and len(weights) > 1:
        module = type(denoiser).from_config(denoiser.config).to(dtype)
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise AnchorError(f"{path} doesn't fit a {type(denoiser).__name__}: {in_short(error)}") from error
        return module.eval()
    if not hasattr(denoiser, "from_single_file"):
        raise AnchorError(f"diffusers can't read a {type(denoiser).__name__} from a single file; give a folder")
    with TemporaryDirectory() as folder:
        denoiser.save_config(folder)
        try:
            return type(denoiser).from_single_file(str(path), config=folder, local_files_only=True, torch_dtype=dtype)
        except Exception as error:  # whatever diffusers' conversions stumble over
            raise AnchorError(
                f"{path} can't be read as a checkpoint of a {type(denoiser).__name__}: {in_short(error)}"
            ) from error


def merge_adapter(anchor: Anchor, denoiser: nn.Module) -> Anchor:
    """A LoRA anchor as a network of its own: a copy of the denoiser with the LoRA merged into its weights."""
    if anchor.adapter is None:
        return anchor
    if quantised := quantised_weight(denoiser):
        raise AnchorError(
            f"the LoRA can't be merged into quantised weights without error ({quantised}); use ensemble='toggle'"
        )
    module = copy.deepcopy(denoiser)
    try:
        for layer in adapter_layers(module, anchor.adapter):
            layer.merge(adapter_names=[anchor.adapter])
    except (RuntimeError, ValueError, TypeError) as error:
        raise AnchorError(f"the LoRA can't be merged into weights ({error}); use ensemble='toggle'") from error
    return replace(anchor, module=module)


def distance(denoiser: nn.Module, module: nn.Module) -> float:
    """Relative distance of two networks' weights, ||a - r|| / ||r||: small for an anchor and its own reference."""
    reference, change, size = weights_of(denoiser), 0.0, 0.0
    for name, value in weights_of(module).items():
        base = reference[name].detach().float()
        change += float((value.detach().to(base.device).float() - base).square().sum())
        size += float(base.square().sum())
    return (change / size) ** 0.5 if size else 0.0
