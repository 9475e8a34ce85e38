"""Statistics of sampled paths: divergence from the reference, implicit reward and particle weights."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from deradiff.divergence import implicit_reward_increment, path_kl
from deradiff.trajectory.smc import select_rows
from deradiff.trajectory.transition import Transition


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Float64 ``[images]`` each, None where undefined; with particles, the values of the sampled particle.

    Attributes:
        path_kl: KL to the reference in nats; under a deterministic sampler, that of the stochastic sampler with equal
            marginals.
        path_kl_to_anchor: KL to the anchor in nats.
        q: Q, the integral of ||Δeps||² d rho along the path.
        implicit_reward: L, an estimate of r / beta, if the drawn noise is known (`deradiff.trajectory.transition`).
            Reliable at lam = 0 and small lam; uninformative at lam of 1 and above.
        log_weight: Feynman–Kac log-weight, from the start; with particles, since the last resampling.
        ess: effective sample size of the image's particles, from 1 to K.
        ancestors: number of the image's K initial particles that still have descendants.
        log_weights: ``[images, K]``, of all particles.
        rows: ``[images]``, the sampled row of the batch.
        stochastic: whether the sampler drew noise.
        unknown_reason: why nothing is known; None if something is.
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
    unknown_reason: str | None = None


class PathStatistics:
    """Running sums for all rows of a batch.

    Args:
        rows: batch size.
        knows_noise: whether the drawn noise can be recovered, so that L is defined.
    """

    NAMES = ("path_kl", "path_kl_to_anchor", "q", "implicit_reward")

    def __init__(self, rows: int, *, knows_noise: bool) -> None:
        self.knows_noise = knows_noise
        self.values = {name: torch.zeros(rows, dtype=torch.float64) for name in self.NAMES}

    def add_step(self, transition: Transition) -> None:
        """Add a step's contributions that are known before the scheduler steps."""
        self.values["q"] += transition.q
        self.values["path_kl"] += path_kl(transition.q, transition.lam)
        self.values["path_kl_to_anchor"] += path_kl(transition.q, 1 - transition.lam)

    def add_noise_term(self, transition: Transition, noise: Tensor | None) -> None:
        """Add a step's contribution to L; ``noise`` as in `implicit_reward_increment`."""
        levels = (transition.level, transition.next)
        self.values["implicit_reward"] += implicit_reward_increment(
            transition.q, transition.eps, *levels, noise, transition.lam
        )

    def defined(self, *, exact: bool) -> dict[str, Tensor]:
        """The sums that are defined, each ``[batch]``; L requires that every step's difference was computed."""
        has_l = self.knows_noise and exact
        return {name: value for name, value in self.values.items() if has_l or name != "implicit_reward"}

    def select(self, index: Tensor) -> None:
        """Replace rows by their parents, ``[batch]``."""
        self.values = {name: select_rows(value, index) for name, value in self.values.items()}


def columns(paths: Paths) -> dict[str, list[float]]:
    """The defined statistics by name, a list with one number for each image; without those of single particles."""
    values = {field.name: getattr(paths, field.name) for field in fields(paths)}
    return {
        name: value.double().tolist()
        for name, value in values.items()
        if isinstance(value, Tensor) and name not in ("log_weights", "rows")
    }
