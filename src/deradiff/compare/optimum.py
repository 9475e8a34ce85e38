"""The optimum itself, where it can be had: what alignment at beta would give if it were perfect.

It is p*_beta ∝ p_ref exp(r / beta) (Rafailov et al. 2023, arXiv 2305.18290, equation 4). Samples of the reference with
weights exp(r / beta), normalised to 1 within a prompt, give its expectations up to Monte-Carlo error, and say by their
effective sample size when they no longer can. Both retraining and its emulation are held against it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from deradiff.analysis.statistics import mean_interval
from deradiff.compare.statistics import ArmDifference, Floats

SCRATCH = "scratch"  # the arm of models aligned from scratch
LEAST_ESS = 15
_LEAST_SHARE = 0.5  # of prompts that must reach it at a beta


@dataclass(frozen=True, kw_only=True)
class ImportanceWeights:
    """Samples of the reference under one beta's weights.

    Attributes:
        weights: (P, N), of N samples of each of P prompts, summing to 1 over samples.
        ess: (P,), effective sample size, from 1 to N.
    """

    weights: Floats
    ess: Floats

    @classmethod
    def of(cls, objective: Floats, beta: float) -> "ImportanceWeights":
        """Weights exp(objective / beta) of samples (P, N) of the reference."""
        weights = softmax(objective / beta, axis=1)
        return cls(weights=weights, ess=1 / np.square(weights).sum(axis=1))

    def mean(self, scores: Floats) -> Floats:
        """Expectation (P,) of scores (P, N) under the optimum."""
        return (self.weights * scores).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Row(ArmDifference):
    """An arm held against the optimum, prompt by prompt; the interval holds the optimum's Monte-Carlo error.

    Attributes:
        optimum: mean score of the optimum.
    """

    optimum: float


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Every arm against the optimum, on the prompts whose effective sample size suffices at all betas shown.

    Attributes:
        objective: name of the reward whose optimum it is.
        samples: of the reference, for each prompt.
        prompts: how many suffice.
        ess: beta -> median over all prompts, of all betas asked for.
        spread: largest less smallest mean of the optimum over the betas shown; 0 where none is.
        refused: betas at which fewer than half of the prompts reach an effective sample size of 15.
        rows: each arm at each beta that isn't refused; empty where all are.
    """

    objective: str
    samples: int
    prompts: int
    ess: dict[float, float]
    spread: float
    refused: tuple[float, ...]
    rows: tuple[Row, ...]

    def of(self, arm: str) -> list[Row]:
        """An arm's rows, by beta."""
        return [row for row in self.rows if row.arm == arm]

    @property
    def warning(self) -> str | None:
        """Where the optimum isn't known, and what to do."""
        if not self.refused:
            return None
        told = ", ".join(f"{beta:g} ({self.ess[beta]:.1f})" for beta in self.refused)
        return (
            f"The optimum isn't known at beta {told}: in brackets the median effective sample size of {self.samples} "
            f"samples a prompt, of which {LEAST_ESS} or more are needed. Draw more of them."
        )


def optimum(
    objective: str, betas: Sequence[float], scores: Floats, rewards: Floats, arms: Mapping[str, Sequence[Floats]]
) -> Optimum:
    """Hold arms against the optimum.

    Args:
        objective: name of the reward that models were aligned to.
        betas: B KL strengths, in the units of that reward.
        scores: (P, N), the objective of N samples of the reference of each of P prompts.
        rewards: (P, N), what is compared: the objective or another reward of the same samples.
        arms: arm -> for each beta the same reward of its images, (P, S) or, for several models, (T, P, S).
    """
    weighed = {beta: ImportanceWeights.of(scores, beta) for beta in betas}
    enough = {beta: own.ess >= LEAST_ESS for beta, own in weighed.items()}
    kept = [beta for beta in betas if enough[beta].mean() >= _LEAST_SHARE]
    prompts = np.all([enough[beta] for beta in kept], axis=0) if kept else np.zeros(len(scores), dtype=bool)
    if prompts.sum() < 2:  # no interval without two
        kept = []
    best = {beta: weighed[beta].mean(rewards) for beta in kept}
    means = [own[prompts].mean() for own in best.values()]
    size = float(max(means) - min(means)) if means else 0.0
    return Optimum(
        objective=objective,
        samples=scores.shape[1],
        prompts=int(prompts.sum()) if kept else 0,
        ess={beta: float(np.median(own.ess)) for beta, own in weighed.items()},
        spread=size,
        refused=tuple(beta for beta in betas if beta not in kept),
        rows=tuple(_rows(best, size, prompts, dict(_by_beta(betas, arms)))),
    )


def _by_beta(
    betas: Sequence[float], arms: Mapping[str, Sequence[Floats]]
) -> Iterator[tuple[tuple[str, float], Floats]]:
    """Mean scores (P,) of each arm at each beta."""
    for arm, tables in arms.items():
        for beta, table in zip(betas, tables, strict=True):
            yield (arm, beta), np.moveaxis(table, -2, 0).reshape(table.shape[-2], -1).mean(axis=1)


def _rows(
    best: dict[float, Floats], size: float, prompts: NDArray[np.bool_], arms: dict[tuple[str, float], Floats]
) -> Iterator[Row]:
    for (arm, beta), table in arms.items():
        if beta in best:
            error = mean_interval((table - best[beta])[prompts, None])
            yield Row(
                arm=arm,
                beta=beta,
                mean=float(table[prompts].mean()),
                optimum=float(best[beta][prompts].mean()),
                error=error,
                share_of_spread=error.mean / size if size else None,
            )
