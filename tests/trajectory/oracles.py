"""Mixtures in one dimension of which everything is known, and a pipeline that samples them."""

from typing import Any

import diffusers
import torch
from torch import Tensor

import deradiff
from deradiff.realignment import Handle
from deradiff.testbed.oracle import Mixture, OracleDenoiser, OraclePipeline, Quadratic

BETA = 0.15
VARIANCE_PRESERVING = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "trailing",
}


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


MODES = Mixture(
    log_weights=torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).log(),
    means=column(-1.3, 0.2, 1.4),
    variances=column(0.04, 0.06, 0.09),
)
REWARD = Quadratic(slope=column(1.0)[0], curvature=column(0.0)[0], centre=column(0.0)[0])


def exact(lam: float) -> Mixture:
    """The model aligned at BETA / lam."""
    return MODES.tilted(REWARD, lam / BETA)[0]


def attached(
    lam: Any, scheduler: str = "EulerAncestralDiscreteScheduler", options: Any = None, **settings: Any
) -> tuple[Any, Handle]:
    base = {} if scheduler.startswith("Flow") else VARIANCE_PRESERVING
    base = base | ({"clip_sample": False} if scheduler.startswith("DD") else {})
    made = getattr(diffusers, scheduler)(**{**base, **(options or {})})
    pipe = OraclePipeline(OracleDenoiser.from_mixture(MODES, made), made)
    return pipe, deradiff.realign(
        pipe, OracleDenoiser.from_mixture(exact(1.0), made), lam, component="unet", **settings
    )


def draw(pipe: Any, count: int, steps: int = 40, seed: int = 0) -> Tensor:
    return pipe(count, steps, generator=torch.Generator().manual_seed(seed)).images
