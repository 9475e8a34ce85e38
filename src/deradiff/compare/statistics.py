"""Errors of an emulation against retrained models, from paired scores.

Retrained models are aligned from scratch at the emulated betas. The images of one prompt and sampling seed share all
noise and are pairs across arms; images of one prompt are alike, so prompts are the clusters. Intervals are at 95% and
hold for the given models. Seed noise, the effect of another training seed, is reported separately.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from deradiff.analysis.statistics import Interval, mean_interval, win_rate
from deradiff.errors import ResultsError

NULL = "null"  # the arm that predicts the mean over betas at every beta

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One reward of all arms.

    Attributes:
        betas: KL strengths.
        retrained: for each beta the scores of its retrained models, ``[models, prompts, seeds]``, one model for each
            training seed.
        arms: arm -> scores ``[betas, prompts, seeds]``.
        same_seed: for each beta the index of the retrained model with the anchor's training seed; empty if a beta lacks
            one.

    Raises:
        ResultsError: fewer than two betas or prompts, or arrays of other shapes.
    """

    betas: tuple[float, ...]
    retrained: tuple[Floats, ...]
    arms: Mapping[str, Floats]
    same_seed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        shape = self.retrained[0].shape[1:]
        if len(self.betas) < 2 or shape[0] < 2:
            raise ResultsError(
                f"expected at least 2 betas and 2 prompts, got {len(self.betas)} and {shape[0]}: errors are shares "
                "of the spread between betas, and intervals need the spread between prompts"
            )
        wrong = {"retrained": {t.shape[1:] for t in self.retrained} - {shape}}
        wrong |= {arm: {table.shape} - {(len(self.betas), *shape)} for arm, table in self.arms.items()}
        if len(self.retrained) != len(self.betas) or any(wrong.values()):
            raise ResultsError(f"expected scores of {len(self.betas)} betas x {shape} images, got {wrong}")

    @property
    def target(self) -> Floats:
        """Mean scores of retrained models over training seeds, ``[betas, prompts, seeds]``."""
        return np.stack([table.mean(axis=0) for table in self.retrained])

    @property
    def same_seed_target(self) -> Floats | None:
        """Scores of the models with the anchor's training seed, ``[betas, prompts, seeds]``; None if one is missing."""
        if not self.same_seed:
            return None
        return np.stack([table[index] for table, index in zip(self.retrained, self.same_seed, strict=True)])


@dataclass(frozen=True, kw_only=True)
class ArmDifference:
    """The error of one arm at one beta against a target.

    Attributes:
        arm: its name.
        beta: KL strength that it emulates.
        mean: its mean score.
        error: mean difference to the target, in the units of the reward.
        share_of_spread: the signed error divided by the spread between betas; None if the spread is 0.
    """

    arm: str
    beta: float
    mean: float
    error: Interval
    share_of_spread: float | None


@dataclass(frozen=True, kw_only=True)
class Row(ArmDifference):
    """The error of an arm against retrained models, in pairs of equal noise.

    Attributes:
        retrained_mean: mean score of the retrained models.
        seed_noise_ratio: the absolute error divided by the seed noise; None if that is unknown or 0.
        win_rate: share of images that score higher than the retrained models', ties count half; None for the null
            predictor, which has no images. The interval assumes independent images.
        same_seed_share: the signed mean difference to the model with the anchor's training seed, divided by the spread
            between that seed's betas: the error without the noise between trainings. None if a beta lacks the seed.
        percent_of_mean: absolute error in % of the absolute retrained mean, as in arXiv 2601.20198; None if that mean
            is 0.
    """

    retrained_mean: float
    seed_noise_ratio: float | None
    win_rate: Interval | None
    same_seed_share: float | None
    percent_of_mean: float | None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The largest minus the smallest retrained mean over betas, in the units of the reward.

    Attributes:
        size: 0 or more.
        significant: whether it is above 0: paired t test over prompts at 5%, with Bonferroni correction for all pairs
            of betas.
    """

    size: float
    significant: bool


def rows(scores: Scores) -> Iterator[Row]:
    """The error of each arm at each beta, the null predictor last."""
    targets, noise, size = scores.target, seed_noise(scores), spread(scores).size
    # the null predictor predicts the mean over betas of each image
    arms = {**scores.arms, NULL: np.broadcast_to(targets.mean(axis=0), targets.shape)}
    for arm, tables in arms.items():
        shares = _same_seed_shares(tables, scores.same_seed_target)
        by_beta = zip(scores.betas, tables, scores.retrained, targets, shares, strict=True)
        for beta, table, retrained, target, share in by_beta:
            error = mean_interval(table - target)
            yield Row(
                arm=arm,
                beta=beta,
                mean=float(table.mean()),
                retrained_mean=float(target.mean()),
                error=error,
                share_of_spread=error.mean / size if size else None,
                seed_noise_ratio=abs(error.mean) / noise if noise else None,
                win_rate=None if arm == NULL else win_rate(table, retrained),
                same_seed_share=share,
                percent_of_mean=100 * abs(error.mean / target.mean()) if target.mean() else None,
            )


def _same_seed_shares(tables: Floats, target: Floats | None) -> list[float | None]:
    means = None if target is None else target.mean(axis=(1, 2))
    if means is None or not (size := float(means.max() - means.min())):
        return [None] * len(tables)
    return ((tables.mean(axis=(1, 2)) - means) / size).tolist()


def spread(scores: Scores) -> Spread:
    """The effect of beta, by which errors are divided."""
    target = scores.target
    means = target.mean(axis=(1, 2))
    pairs = len(means) * (len(means) - 1) / 2
    difference = mean_interval(target[means.argmax()] - target[means.argmin()], level=1 - 0.05 / pairs)
    return Spread(size=difference.mean, significant=difference.low > 0)


def seed_noise(scores: Scores) -> float | None:
    """Mean over betas of the absolute mean paired difference between two training seeds; None if no beta has two."""
    noises = [
        np.mean([abs(np.mean(one - other)) for one, other in combinations(table, 2)])
        for table in scores.retrained
        if len(table) > 1
    ]
    return float(np.mean(noises)) if noises else None
