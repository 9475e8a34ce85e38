"""Interpolated weights: one network at theta_ref + sum_k lam_k (theta_k - theta_ref), so one call a step.

A baseline of realignment and, on small models up to lam of about 2, as good; it takes one lam for the whole batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from deradiff.anchor.adapters import scaled, switched
from deradiff.anchor.lend import weights_of
from deradiff.anchor.networks import Lent
from deradiff.mixture import coefficients, combine

Call = Callable[..., Any]


class Interpolated(ABC):
    """A denoiser whose weights depend on the lams."""

    @abstractmethod
    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], lams: Sequence[float]) -> Any:
        """Output of the network at the interpolated weights, one lam an anchor."""

    def rest(self) -> None:  # noqa: B027  (adapters travel with the denoiser: nothing to do)
        """A run of the pipeline ended."""


class InterpolatedAdapters(Interpolated):
    """LoRA anchors: each update scaled by its lam."""

    def __init__(self, denoiser: nn.Module, names: Sequence[str]) -> None:
        self.denoiser, self.names = denoiser, names

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], lams: Sequence[float]) -> Any:
        """Run with each adapter at its lam; adapters at lam = 0 are off, so that 0 is the reference bit for bit."""
        scales = {name: lam for name, lam in zip(self.names, lams, strict=True) if lam}
        off = [name for name in self.names if name not in scales]
        with switched(self.denoiser, on=list(scales), off=off), scaled(self.denoiser, scales):
            return call(*args, **kwargs)


class InterpolatedNetworks(Interpolated):
    """Full anchors: a further set of weights is filled anew when a lam changes."""

    def __init__(self, denoiser: nn.Module, modules: Sequence[nn.Module]) -> None:
        self.denoiser = denoiser
        self.anchors = [weights_of(module) for module in modules]
        self.mixture = Lent(denoiser, {name: value.detach().clone() for name, value in self.anchors[0].items()})
        self.filled: tuple[float, ...] | None = None

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], lams: Sequence[float]) -> Any:
        """Run at the interpolated weights; the reference at lam = 0 is itself, bit for bit."""
        if not any(lams):
            return call(*args, **kwargs)
        if self.filled != tuple(lams):
            self._fill(lams)
            self.filled = tuple(lams)
        return self.mixture.run(call, args, kwargs)

    def rest(self) -> None:
        """Pass the end of a run on."""
        self.mixture.rest()

    @torch.no_grad()
    def _fill(self, lams: Sequence[float]) -> None:
        reference = weights_of(self.denoiser)
        for name, target in self.mixture.weights.items():
            if target.is_floating_point():
                models = [reference[name], *(anchor[name] for anchor in self.anchors)]
                target.copy_(combine([value.to(target.device) for value in models], coefficients(lams)))
