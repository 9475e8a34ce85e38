"""What a sampled path tells of its image: how far it went, what reward it implies, what weight it has."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from deradiff.divergence import (
    implicit_reward_increment,
    q_increment,
    resampling_log_weight_increment,
    step_kl,
)
from deradiff.paths.particles import take
from deradiff.paths.transition import Transition


@dataclass(frozen=True, kw_only=True)
class Paths:
    """One value an image, float64; None where it isn't defined. With particles, of the one that was chosen.

    Attributes:
        path_kl: nats to the reference; on a deterministic sampler that of the stochastic one it is the limit of.
        path_kl_to_anchor: nats to the anchor.
        q: Q, the sum of ||Δmu||² / sigma² over steps that draw noise; on other samplers the integral ||Δeps||² d rho.
        implicit_reward: L, an estimate of r / beta, where the kernels are known (`deradiff.paths.transition`).
            Trust it at lam = 0 and small lam; at lam of 1 and above it says nothing of the reward.
        log_weight: of the Feynman–Kac correction, from the start; with particles, since the last resampling.
        ess: effective sample size of the image's particles, from 1 to K.
        distinct: how many of the K first particles have descendants among those that remain.
        log_weights: (images, K), of all particles.
        rows: (images,), which row of the batch was chosen.
    """

    path_kl: Tensor | None
    path_kl_to_anchor: Tensor | None
    q: Tensor | None
    implicit_reward: Tensor | None
    log_weight: Tensor | None
    ess: Tensor | None
    distinct: Tensor | None
    log_weights: Tensor | None
    rows: Tensor


class Sums:
    """The running sums of all rows of a batch.

    Args:
        rows: B.
        posterior: whether the kernels are known, so that L is defined.
        stochastic: whether steps draw noise.
    """

    NAMES = ("path_kl", "path_kl_to_anchor", "q", "implicit_reward")

    def __init__(self, rows: int, *, posterior: bool, stochastic: bool) -> None:
        self.posterior, self.stochastic = posterior, stochastic
        self.values = {name: torch.zeros(rows, dtype=torch.float64) for name in self.NAMES}

    def step(self, transition: Transition) -> None:
        """Add the divergences of a step."""
        grown = self._divergence(transition)  # KL at lam = 1
        lam = transition.lam
        self.values["path_kl"] += lam**2 * grown
        self.values["path_kl_to_anchor"] += (1 - lam) ** 2 * grown
        if transition.ahead.sigma > 0 or not self.stochastic:
            self.values["q"] += 2 * grown

    def drawn(self, transition: Transition, shift: Tensor, sigma: float, noise: Tensor) -> None:
        """Add a step's share of L."""
        self.values["implicit_reward"] += implicit_reward_increment(shift, sigma, noise, transition.lam)

    def known(self, exact: bool) -> dict[str, Tensor]:
        """The sums that are defined; L only where every step's difference was computed."""
        defined = self.posterior and exact
        return {name: value for name, value in self.values.items() if defined or name != "implicit_reward"}

    def take(self, index: Tensor) -> None:
        """Let rows go on from others."""
        self.values = {name: take(value, index) for name, value in self.values.items()}

    def _divergence(self, transition: Transition) -> Tensor:
        level, target = transition.level, transition.target
        if target.log_snr <= level.log_snr:
            return torch.zeros_like(transition.lam)
        if self.stochastic:
            return step_kl(transition.x_0, level, target, 1.0)
        return 0.5 * q_increment(transition.eps, level, target)


def log_weight_increment(transition: Transition) -> Tensor:
    """What x_t adds to its rows' Feynman–Kac log-weights, (B,)."""
    levels = (transition.behind, transition.level, transition.ahead)
    return resampling_log_weight_increment(transition.eps, *levels, transition.lam)


def columns(paths: Paths) -> dict[str, list[float]]:
    """What is known of each image, by name, JSON-able; without the particles' own rows."""
    found = {field.name: getattr(paths, field.name) for field in fields(paths)}
    return {
        name: value.double().tolist()
        for name, value in found.items()
        if value is not None and name not in ("log_weights", "rows")
    }
