"""The optimum of alignment at beta, estimated from samples of the reference.

It is p*_beta ∝ p_ref exp(r / beta) (Rafailov et al. 2023, arXiv 2305.18290, equation 4). Samples of the reference with
weights exp(r / beta), normalised within each prompt, estimate expectations under the optimum. Their effective sample
size shows where the estimate fails. Retraining and its emulation are both compared with the optimum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from deradiff.analysis.statistics import mean_interval
from deradiff.compare.statistics import ArmDifference, Floats

RETRAINED = "scratch"  # the arm of retrained models, in file and folder names
LEAST_ESS = 15  # effective sample size that a prompt needs
_LEAST_SHARE = 0.5  # of prompts that must reach it at a beta


@dataclass(frozen=True, kw_only=True)
class ImportanceWeights:
    """Importance weights of the reference's samples for the optimum at one beta.

    Attributes:
        weights: ``[prompts, samples]``, with sum 1 for each prompt.
        ess: effective sample size, ``[prompts]``, from 1 to the number of samples.
    """

    weights: Floats
    ess: Floats

    @classmethod
    def from_scores(cls, objective: Floats, beta: float) -> "ImportanceWeights":
        """Weights exp(objective / beta) of samples ``[prompts, samples]`` of the reference."""
        weights = softmax(objective / beta, axis=1)
        return cls(weights=weights, ess=1 / np.square(weights).sum(axis=1))

    def mean(self, scores: Floats) -> Floats:
        """Expectation ``[prompts]`` of scores ``[prompts, samples]`` under the optimum."""
        return (self.weights * scores).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Row(ArmDifference):
    """An arm's error against the optimum, prompt by prompt; the interval includes the optimum's Monte-Carlo error.

    Attributes:
        optimum: mean score of the optimum.
    """

    optimum: float


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The error of each arm against the optimum, on prompts with a sufficient effective sample size at all betas shown.

    Attributes:
        objective: name of the reward that the optimum maximises.
        samples: number of samples of the reference for each prompt.
        prompts: number of prompts with a sufficient effective sample size.
        ess: beta -> median effective sample size over all prompts, for all betas.
        spread: largest minus smallest mean of the optimum over the betas shown; 0 if none is shown.
        refused: betas at which fewer than half of the prompts reach an effective sample size of 15.
        rows: each arm at each beta shown.
    """

    objective: str
    samples: int
    prompts: int
    ess: dict[float, float]
    spread: float
    refused: tuple[float, ...]
    rows: tuple[Row, ...]

    def arm_rows(self, arm: str) -> list[Row]:
        """An arm's rows, by beta."""
        return [row for row in self.rows if row.arm == arm]

    @property
    def warning(self) -> str | None:
        """At which betas the optimum is unknown and how to estimate it; None if it is known at all."""
        if not self.refused:
            return None
        betas = ", ".join(f"{beta:g} ({self.ess[beta]:.1f})" for beta in self.refused)
        return (
            f"The optimum is unknown at beta {betas}. In brackets: the median effective sample size of {self.samples} "
            f"samples for each prompt; {LEAST_ESS} or more is needed. Take more samples."
        )


def compute_optimum(
    objective: str, betas: Sequence[float], scores: Floats, rewards: Floats, arms: Mapping[str, Sequence[Floats]]
) -> Optimum:
    """Compare arms with the optimum.

    Args:
        objective: name of the reward to which the models were aligned.
        betas: KL strengths, in the units of that reward.
        scores: the objective of the reference's samples, ``[prompts, samples]``.
        rewards: the compared reward of the same samples, ``[prompts, samples]``.
        arms: arm -> for each beta the compared reward of its images, ``[prompts, seeds]`` or, for several models,
            ``[models, prompts, seeds]``.
    """
    weights = {beta: ImportanceWeights.from_scores(scores, beta) for beta in betas}
    sufficient = {beta: one.ess >= LEAST_ESS for beta, one in weights.items()}
    shown = [beta for beta in betas if sufficient[beta].mean() >= _LEAST_SHARE]
    prompts = np.all([sufficient[beta] for beta in shown], axis=0) if shown else np.zeros(len(scores), dtype=bool)
    if prompts.sum() < 2:  # an interval needs two
        shown = []
    optimal = {beta: weights[beta].mean(rewards) for beta in shown}
    means = [means[prompts].mean() for means in optimal.values()]
    size = float(max(means) - min(means)) if means else 0.0
    return Optimum(
        objective=objective,
        samples=scores.shape[1],
        prompts=int(prompts.sum()) if shown else 0,
        ess={beta: float(np.median(one.ess)) for beta, one in weights.items()},
        spread=size,
        refused=tuple(beta for beta in betas if beta not in shown),
        rows=tuple(_rows(optimal, size, prompts, dict(_by_beta(betas, arms)))),
    )


def _by_beta(
    betas: Sequence[float], arms: Mapping[str, Sequence[Floats]]
) -> Iterator[tuple[tuple[str, float], Floats]]:
    """Mean scores ``[prompts]`` of each arm at each beta."""
    for arm, tables in arms.items():
        for beta, table in zip(betas, tables, strict=True):
            yield (arm, beta), np.moveaxis(table, -2, 0).reshape(table.shape[-2], -1).mean(axis=1)


def _rows(
    optimal: dict[float, Floats], size: float, prompts: NDArray[np.bool_], arms: dict[tuple[str, float], Floats]
) -> Iterator[Row]:
    for (arm, beta), table in arms.items():
        if beta in optimal:
            error = mean_interval((table - optimal[beta])[prompts, None])
            yield Row(
                arm=arm,
                beta=beta,
                mean=float(table[prompts].mean()),
                optimum=float(optimal[beta][prompts].mean()),
                error=error,
                share_of_spread=error.mean / size if size else None,
            )
