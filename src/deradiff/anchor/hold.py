"""Choosing how the models of one denoiser are held."""

from typing import Literal

from torch import nn

from deradiff.anchor.batch import MixedBatch, batch_obstacle, batch_pays
from deradiff.anchor.lend import weights_of
from deradiff.anchor.load import Anchor
from deradiff.anchor.networks import Adapted, InTurn, Lent, Models, Network
from deradiff.anchor.weights import Interpolated, InterpolatedAdapters, InterpolatedNetworks
from deradiff.errors import AnchorError

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
    if mode == "batch" or (mode == "auto" and not modules and obstacle is None and batch_pays(denoiser)):
        return MixedBatch(denoiser, adapters)
    networks: list[Network] = [Adapted(denoiser, on=[], off=adapters)]
    for anchor in anchors:
        if anchor.module is not None:
            networks.append(Lent(denoiser, weights_of(anchor.module), off=adapters))
        else:
            off = [name for name in adapters if name != anchor.adapter]
            networks.append(Adapted(denoiser, on=[str(anchor.adapter)], off=off))
    return InTurn(networks)
