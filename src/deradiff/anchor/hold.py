"""Choosing how the models of one denoiser are held."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from deradiff.anchor.adapters import active_adapters, adapter_layers
from deradiff.anchor.lend import weights_of
from deradiff.anchor.load import Anchor
from deradiff.anchor.networks import Adapted, InTurn, Lent, MixedBatch, Models, Network
from deradiff.anchor.weights import Interpolated, InterpolatedAdapters, InterpolatedNetworks
from deradiff.errors import AnchorError

# Networks on which tests hold that one mixed batch predicts what separate passes do; others mix rows, or refuse them.
_BATCHED = ("UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel")

Mode = Literal["auto", "networks", "switch", "batch", "weights"]


def hold(component: str, denoiser: nn.Module, anchors: list[Anchor], mode: Mode) -> Models | Interpolated:
    """Hold the reference and its anchors in one of the ways of :data:`Mode`.

    Raises:
        AnchorError: the anchors can't be held so.
    """
    adapters = [anchor.adapter for anchor in anchors if anchor.adapter is not None]
    modules = [anchor.module for anchor in anchors if anchor.module is not None]
    if mode in ("switch", "batch") and modules:
        raise AnchorError(f"mode={mode!r} needs a LoRA anchor, but the anchor of {component} is a full network")
    if mode == "weights":
        if modules and adapters:
            raise AnchorError("mode='weights' takes anchors of one kind, got full networks and LoRAs together")
        return InterpolatedNetworks(denoiser, modules) if modules else InterpolatedAdapters(denoiser, adapters)
    obstacle = batch_obstacle(denoiser, adapters)
    if mode == "batch" and obstacle:
        raise AnchorError(f"mode='batch' can't be used: {obstacle}; use mode='switch'")
    if mode == "batch" or (mode == "auto" and not modules and obstacle is None and _batch_pays(denoiser)):
        return MixedBatch(denoiser, adapters)
    networks: list[Network] = [Adapted(denoiser, on=[], off=adapters)]
    for anchor in anchors:
        if anchor.module is not None:
            networks.append(Lent(denoiser, weights_of(anchor.module), off=adapters))
        else:
            off = [name for name in adapters if name != anchor.adapter]
            networks.append(Adapted(denoiser, on=[str(anchor.adapter)], off=off))
    return InTurn(networks)


def batch_obstacle(denoiser: nn.Module, names: Sequence[str]) -> str | None:
    """Why the anchors' LoRAs can't share one forward, or None where they can."""
    others = active_adapters(denoiser) - set(names)
    if others:
        return f"the adapter {', '.join(sorted(others))} is active too, and PEFT routes a row through one adapter only"
    for name in names:
        for layer in adapter_layers(denoiser, name):
            if not hasattr(layer, "_mixed_batch_forward"):
                return f"the adapter {name} has layers of type {type(layer).__name__}, which can't be mixed in a batch"
            if getattr(layer, "lora_variant", {}).get(name):
                return f"the adapter {name} is a LoRA variant (DoRA or kin), which can't be mixed in a batch"
    return None


def _batch_pays(denoiser: nn.Module) -> bool:
    """Whether one larger forward beats two, on accelerators, for networks that take any stack of rows."""
    return next(denoiser.parameters()).device.type != "cpu" and type(denoiser).__name__ in _BATCHED
