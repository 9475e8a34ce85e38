"""What a sampled path tells of its image: how far it went, what reward it implies, what weight it has."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from deradiff.divergence import implicit_reward_increment, path_kl
from deradiff.trajectory.smc import take
from deradiff.trajectory.transition import Transition


@dataclass(frozen=True, kw_only=True)
class Paths:
    """One value an image, float64; None where it isn't defined. With particles, of the one that was chosen.

    Attributes:
        path_kl: nats to the reference; under a deterministic sampler that of the stochastic one with its marginals.
        path_kl_to_anchor: nats to the anchor.
        q: Q, the integral of ||Δeps||² d rho along the path.
        implicit_reward: L, an estimate of r / beta, where the drawn noise is known (`deradiff.trajectory.transition`).
            Trust it at lam = 0 and small lam; at lam of 1 and above it says nothing of the reward.
        log_weight: of the Feynman–Kac correction, from the start; with particles, since the last resampling.
        ess: effective sample size of the image's particles, from 1 to K.
        ancestors: how many of the K first particles have descendants among those that remain.
        log_weights: (images, K), of all particles.
        rows: (images,), which row of the batch was chosen.
        stochastic: whether the sampler drew noise.
        unknown: why nothing is known; None where something is.
    """

    path_kl: Tensor | None
    path_kl_to_anchor: Tensor | None
    q: Tensor | None
    implicit_reward: Tensor | None
    log_weight: Tensor | None
    ess: Tensor | None
    ancestors: Tensor | None
    log_weights: Tensor | None
    rows: Tensor
    stochastic: bool | None = None
    unknown: str | None = None


class PathStatistics:
    """The running sums of all rows of a batch.

    Args:
        rows: B.
        draws: whether the noise that is drawn is known, so that L is defined.
    """

    NAMES = ("path_kl", "path_kl_to_anchor", "q", "implicit_reward")

    def __init__(self, rows: int, *, draws: bool) -> None:
        self.draws = draws
        self.values = {name: torch.zeros(rows, dtype=torch.float64) for name in self.NAMES}

    def step(self, transition: Transition) -> None:
        """Add what a step tells before it is made."""
        self.values["q"] += transition.q
        self.values["path_kl"] += path_kl(transition.q, transition.lam)
        self.values["path_kl_to_anchor"] += path_kl(transition.q, 1 - transition.lam)

    def add_noise_term(self, transition: Transition, noise: Tensor | None) -> None:
        """Add a step's share of L."""
        levels = (transition.level, transition.next)
        self.values["implicit_reward"] += implicit_reward_increment(
            transition.q, transition.eps, *levels, noise, transition.lam
        )

    def known(self, exact: bool) -> dict[str, Tensor]:
        """The sums that are defined; L only where every step's difference was computed."""
        defined = self.draws and exact
        return {name: value for name, value in self.values.items() if defined or name != "implicit_reward"}

    def take(self, index: Tensor) -> None:
        """Let rows go on from others."""
        self.values = {name: take(value, index) for name, value in self.values.items()}


def columns(paths: Paths) -> dict[str, list[float]]:
    """What is known of each image, by name, JSON-able; without the particles' own rows."""
    found = {field.name: getattr(paths, field.name) for field in fields(paths)}
    return {
        name: value.double().tolist()
        for name, value in found.items()
        if isinstance(value, Tensor) and name not in ("log_weights", "rows")
    }
