"""Learned variances: the precision-weighted mixture of two reverse kernels with different variances.

A network with learned variance returns twice as many channels as its sample has: the prediction, and a fraction v in
[-1, 1] that places the log-variance between the two bounds of the schedule (Nichol & Dhariwal 2021, eq. 15, diffusers'
``learned_range``).  Means are affine in predictions with coefficients that both models share, so the mixture's
mean-weights are also the prediction-weights, and its log-variance is turned back into a fraction.
The mixture is taken before classifier-free guidance: of each branch by itself.
"""

import inspect
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import torch
from torch import Tensor

from deradiff.mixture import geometric_mixture, lerp

LEARNED = "learned_range"


def has_learned_variance(scheduler: Any, sample: Any, prediction: Any) -> bool:
    """Whether the scheduler will read a variance off the second half of this prediction's channels."""
    if not is_learned(scheduler):
        return False
    doubled = isinstance(prediction, Tensor) and isinstance(sample, Tensor) and prediction.ndim > 2
    return doubled and prediction.shape[1] == 2 * _latent_channels(scheduler, sample, prediction)


def is_learned(scheduler: Any) -> bool:
    """Whether the scheduler reads learned variances."""
    variance_type = getattr(getattr(scheduler, "config", None), "variance_type", None)
    return variance_type == LEARNED and "predicted_variance" in _arguments(scheduler)


def _arguments(scheduler: Any) -> Collection[str]:
    """What its variance depends on; solvers that keep the config entry but draw no noise have none."""
    return _parameters(type(scheduler)._get_variance) if hasattr(scheduler, "_get_variance") else ()


@cache
def _parameters(function: Callable[..., Any]) -> Collection[str]:
    return inspect.signature(function).parameters


def _latent_channels(scheduler: Any, sample: Tensor, prediction: Tensor) -> int:
    # super-resolution networks take the low-resolution image as further input channels
    return min(sample.shape[1], prediction.shape[1] // 2)


def mix_with_variance(reference: Tensor, aligned: Tensor, lam: float | Tensor, scheduler: Any, timestep: Any) -> Tensor:
    """Mix predictions (B, 2C, ...) of a scheduler with ``variance_type="learned_range"``.

    Raises:
        LamError: some element's mixed precision isn't positive (lam too far beyond 1).
    """
    low, high = log_variance_bounds(scheduler, timestep)
    (eps_ref, v_ref), (eps_aligned, v_aligned) = reference.chunk(2, dim=1), aligned.chunk(2, dim=1)
    if high - low < 1e-6 or low < -40:  # the last step adds no noise: there only the mean matters
        return torch.cat([lerp(eps_ref, eps_aligned, lam), v_ref], dim=1)
    variances = [(low + (v.double() + 1) / 2 * (high - low)).exp() for v in (v_ref, v_aligned)]
    eps, variance = geometric_mixture(eps_ref.double(), variances[0], eps_aligned.double(), variances[1], lam)
    fraction = 2 * (variance.log() - low) / (high - low) - 1
    return torch.cat([eps, fraction], dim=1).to(reference.dtype)


def log_variance_bounds(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """The log-variances that v = -1 and v = 1 stand for at a timestep, as the scheduler itself computes them."""
    t = int(torch.as_tensor(timestep).flatten()[0])
    extra = {}
    if "prev_timestep" in _arguments(scheduler):  # unCLIP's scheduler is told the next one
        steps = scheduler.timesteps.tolist()
        following = steps.index(t) + 1
        extra = {"prev_timestep": int(steps[following]) if following < len(steps) else None}
    low, high = (
        scheduler._get_variance(t, predicted_variance=torch.tensor(v, dtype=torch.float64), **extra)
        for v in (-1.0, 1.0)
    )
    return float(low), float(high)
