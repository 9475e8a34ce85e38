"""Adapters (LoRA and kin) inside a denoiser: switched, loaded and taken out again without a trace.

PEFT keeps the active adapters on every layer.  Its own ``set_adapter`` also flips ``requires_grad``, so the lists are
set here directly and put back in ``finally``.
"""

# pyright: reportPrivateUsage=false
# The lists have private names in PEFT.

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from deradiff.anchor.module_tree import ModuleTree, adapters_of
from deradiff.errors import RealignError

_METADATA = ("peft_config", "_hf_peft_config_loaded", "_weight_conversions")  # where networks note their adapters
_ACTIVE, _DISABLED, _UNSET = "_active_adapter", "_disable_adapters", object()


def adapter_layers(denoiser: nn.Module, name: str | None = None) -> list[BaseTunerLayer]:
    """The adapter layers of a denoiser, or those of one adapter only."""
    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    return [layer for layer in layers if name is None or name in adapters_of(layer)]


def adapter_names(denoiser: nn.Module) -> list[str]:
    """Names of the adapters loaded on a denoiser."""
    return list(getattr(denoiser, "peft_config", {}))


def active_adapters(denoiser: nn.Module) -> set[str]:
    """Names of the adapters that take part in a forward now."""
    layers = [layer for layer in adapter_layers(denoiser) if not layer.disable_adapters]
    return {name for layer in layers for name in layer.active_adapters if name in adapters_of(layer)}


def check_not_fused(denoiser: nn.Module) -> None:
    """Raise RealignError where an adapter is merged into the weights, so that it can't be switched off."""
    fused = sorted({name for layer in adapter_layers(denoiser) for name in layer.merged_adapters})
    if fused:
        raise RealignError(f"the LoRA {', '.join(fused)} is fused into the weights; call pipe.unfuse_lora() first")


def check_no_others(tree: ModuleTree, names: Collection[str]) -> None:
    """Raise RealignError where other adapters are active too, for PEFT routes a row through one adapter only."""
    others = {
        name
        for layer, available in tree.adapter_layers
        if not layer._disable_adapters
        for name in _active(layer)
        if name not in names and name in available
    }
    if others:
        raise RealignError(
            f"ensemble='batched' leaves no room for the active LoRA {', '.join(sorted(others))}; use ensemble='toggle'"
        )


@contextmanager
def toggled(tree: ModuleTree, *, on: Collection[str], off: Collection[str]) -> Generator[None]:
    """Inside the block adapters ``on`` take part and ``off`` don't; all others stay as they are.

    Raises:
        RealignError: one of them has been unloaded.
    """
    named, there = {*on, *off}, getattr(tree.denoiser, "peft_config", {})
    if gone := sorted(name for name in named if name not in there):
        raise RealignError(f"the LoRA {', '.join(gone)} has been unloaded; call handle.remove() and realign again")
    # through vars(): nn.Module's own __setattr__ is ten times as slow, and these are no modules or parameters
    states = [vars(layer) for layer, _ in tree.adapter_layers]
    saved = [(state, state.get(_ACTIVE, _UNSET), state.get(_DISABLED, _UNSET)) for state in states]
    by_state: dict[tuple[Any, ...], list[str]] = {}  # most layers are alike
    try:
        for state, (layer, available) in zip(states, tree.adapter_layers, strict=True):
            active = () if layer._disable_adapters else tuple(_active(layer))
            kept = by_state.get((active, available))
            if kept is None:
                kept = [name for name in active if name not in named] + [name for name in on if name in available]
                by_state[active, available] = kept
            state[_ACTIVE], state[_DISABLED] = kept, not kept
        yield
    finally:
        for state, active, disabled in saved:
            state[_ACTIVE], state[_DISABLED] = active, disabled
            if active is _UNSET or disabled is _UNSET:
                for name in [name for name in (_ACTIVE, _DISABLED) if state[name] is _UNSET]:
                    del state[name]


def _active(layer: BaseTunerLayer) -> Sequence[str]:
    """As PEFT's property, without its cost."""
    active = layer._active_adapter
    return [active] if isinstance(active, str) else active


@contextmanager
def scaled(tree: ModuleTree, scales: Mapping[str, float]) -> Generator[None]:
    """Inside the block each named adapter's update is multiplied by its scale."""
    layers: list[Any] = [layer for layer, _ in tree.adapter_layers]
    saved = [(layer.scaling, n, layer.scaling[n]) for n in scales for layer in layers if n in layer.scaling]
    try:
        for scaling, name, value in saved:
            scaling[name] = value * scales[name]
        yield
    finally:
        for scaling, name, value in saved:
            scaling[name] = value


def set_active(layer: BaseTunerLayer, names: list[str]) -> None:
    """Let these adapters of a layer take part in a forward, and no others."""
    layer._active_adapter, layer._disable_adapters = names, not names


@contextmanager
def same_active(layers: Sequence[BaseTunerLayer]) -> Generator[None]:
    """Put back after the block which adapters of these layers are active."""
    saved = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
    try:
        yield
    finally:
        for layer, active, disabled in saved:
            layer._active_adapter, layer._disable_adapters = active, disabled


@contextmanager
def unchanged_otherwise(denoiser: nn.Module) -> Generator[None]:
    """Undo what loading or deleting an adapter does beside its work: other adapters' activity, ``requires_grad``."""
    parameters = [(parameter, parameter.requires_grad) for parameter in denoiser.parameters()]
    try:
        with same_active(adapter_layers(denoiser)):
            yield
    finally:
        for parameter, requires_grad in parameters:
            parameter.requires_grad_(requires_grad)


def peft_metadata(denoiser: nn.Module) -> dict[str, Any]:
    """What a network says of its adapters, for :func:`remove_adapter`."""
    return {key: value for key, value in vars(denoiser).items() if key in _METADATA}


def remove_adapter(denoiser: nn.Module, name: str, before: Mapping[str, Any]) -> None:
    """Delete an adapter, if it is there still; layers that held no other one give way to the original ones.

    ``before`` are the denoiser's metadata from before the adapter came.
    """
    for layer in adapter_layers(denoiser, name):
        if name in layer.merged_adapters:
            layer.unmerge()
        if name in layer.active_adapters:
            layer._active_adapter = [active for active in layer.active_adapters if active != name]
    with unchanged_otherwise(denoiser):  # it also flips requires_grad of the adapter that is left
        delete_adapters: Any = getattr(denoiser, "delete_adapters", None)
        if delete_adapters is not None:  # diffusers' PeftAdapterMixin
            delete_adapters(name)
        else:  # transformers'
            for layer in adapter_layers(denoiser, name):
                layer.delete_adapter(name)
            getattr(denoiser, "peft_config", {}).pop(name, None)
    for path, layer in list(denoiser.named_modules()):
        if isinstance(layer, BaseTunerLayer) and not adapters_of(layer):
            parent, _, key = path.rpartition(".")
            setattr(denoiser.get_submodule(parent), key, layer.get_base_layer())
    if not adapter_names(denoiser):
        for key in _METADATA:
            vars(denoiser).pop(key, None)
        vars(denoiser).update(before)
