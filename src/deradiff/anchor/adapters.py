"""Adapters (LoRA and kin) inside a denoiser: switched, loaded and taken out again without a trace.

PEFT keeps the active adapters on every layer.  Its own ``set_adapter`` also flips ``requires_grad``, so the lists are
set here directly and put back in ``finally``.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from deradiff.errors import RealignError

_NOTES = ("peft_config", "_hf_peft_config_loaded")  # where a network notes which adapters it has


def adapter_layers(denoiser: nn.Module, name: str | None = None) -> list[BaseTunerLayer]:
    """The adapter layers of a denoiser, or those of one adapter only."""
    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    return [layer for layer in layers if name is None or name in layer._all_available_adapter_names()]


def adapter_names(denoiser: nn.Module) -> list[str]:
    """Names of the adapters loaded on a denoiser."""
    return list(getattr(denoiser, "peft_config", {}))


def active_adapters(denoiser: nn.Module) -> set[str]:
    """Names of the adapters that take part in a forward now."""
    layers = [layer for layer in adapter_layers(denoiser) if not layer.disable_adapters]
    return {name for layer in layers for name in layer.active_adapters if name in layer._all_available_adapter_names()}


def refuse_fused(denoiser: nn.Module) -> None:
    """Raise RealignError where an adapter is merged into the weights, so that it can't be switched off."""
    fused = sorted({name for layer in adapter_layers(denoiser) for name in layer.merged_adapters})
    if fused:
        raise RealignError(f"the LoRA {', '.join(fused)} is fused into the weights; call pipe.unfuse_lora() first")


def refuse_others(denoiser: nn.Module, names: Collection[str]) -> None:
    """Raise RealignError where other adapters are active too, for PEFT routes a row through one adapter only."""
    others = sorted(active_adapters(denoiser) - set(names))
    if others:
        raise RealignError(f"mode='batch' leaves no room for the active LoRA {', '.join(others)}; use mode='switch'")


@contextmanager
def switched(denoiser: nn.Module, *, on: Collection[str], off: Collection[str]) -> Iterator[None]:
    """Inside the block adapters ``on`` take part and ``off`` don't; all others stay as they are.

    Raises:
        RealignError: one of them has been unloaded.
    """
    gone = sorted({*on, *off} - set(adapter_names(denoiser)))
    if gone:
        raise RealignError(f"the LoRA {', '.join(gone)} has been unloaded; call handle.remove() and realign again")
    saved = [(layer, layer._active_adapter, layer._disable_adapters) for layer in adapter_layers(denoiser)]
    try:
        for layer, _, disabled in saved:
            kept = [] if disabled else [name for name in layer.active_adapters if name not in {*on, *off}]
            layer._active_adapter = kept + [name for name in on if name in layer._all_available_adapter_names()]
            layer._disable_adapters = not layer._active_adapter
        yield
    finally:
        for layer, active, disabled in saved:
            layer._active_adapter, layer._disable_adapters = active, disabled


@contextmanager
def scaled(denoiser: nn.Module, scales: Mapping[str, float]) -> Iterator[None]:
    """Inside the block each named adapter's update is multiplied by its scale."""
    layers: list[Any] = adapter_layers(denoiser)
    saved = [(layer.scaling, n, layer.scaling[n]) for n in scales for layer in layers if n in layer.scaling]
    try:
        for scaling, name, value in saved:
            scaling[name] = value * scales[name]
        yield
    finally:
        for scaling, name, value in saved:
            scaling[name] = value


@contextmanager
def unchanged_otherwise(denoiser: nn.Module) -> Iterator[None]:
    """Undo what loading or deleting an adapter does beside its work: other adapters' activity, ``requires_grad``."""
    layers = [(layer, layer._active_adapter, layer._disable_adapters) for layer in adapter_layers(denoiser)]
    parameters = [(parameter, parameter.requires_grad) for parameter in denoiser.parameters()]
    try:
        yield
    finally:
        for layer, active, disabled in layers:
            layer._active_adapter, layer._disable_adapters = active, disabled
        for parameter, requires_grad in parameters:
            parameter.requires_grad_(requires_grad)


def notes(denoiser: nn.Module) -> dict[str, Any]:
    """What a network says of its adapters, for :func:`take_out`."""
    return {key: value for key, value in vars(denoiser).items() if key in _NOTES}


def take_out(denoiser: nn.Module, name: str, before: Mapping[str, Any]) -> None:
    """Delete an adapter, if it is there still; layers that held no other one give way to the original ones.

    ``before`` are the denoiser's notes from before the adapter came.
    """
    for layer in adapter_layers(denoiser, name):
        if name in layer.merged_adapters:
            layer.unmerge()
        if name in layer.active_adapters:
            layer._active_adapter = [active for active in layer.active_adapters if active != name]
    with unchanged_otherwise(denoiser):  # it also flips requires_grad of the adapter that is left
        denoiser.delete_adapters(name)  # pyright: ignore[reportCallIssue]  (diffusers' PeftAdapterMixin)
    for path, layer in list(denoiser.named_modules()):
        if isinstance(layer, BaseTunerLayer) and not layer._all_available_adapter_names():
            parent, _, key = path.rpartition(".")
            setattr(denoiser.get_submodule(parent), key, layer.get_base_layer())
    if not adapter_names(denoiser):
        for key in _NOTES:
            vars(denoiser).pop(key, None)
        vars(denoiser).update(before)
