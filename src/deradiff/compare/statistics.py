"""How far an emulation is from models aligned from scratch: a table of paired scores in, figures out; no model.

The images of one prompt and sampling seed share all noise, so they are pairs across arms; those of one prompt are
alike, so prompts are the clusters. Intervals are at 95 % and hold for the models at hand: what another training seed
would change is told apart, as seed noise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from deradiff.analysis.statistics import Interval, mean_interval, win_rate
from deradiff.errors import ResultsError

NULL = "null"  # the arm that predicts the same at every beta

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One reward of all arms; B betas, P prompts, S sampling seeds.

    Attributes:
        betas: B KL strengths.
        scratch: for each beta the scores (T, P, S) of its T models aligned from scratch, one a training seed.
        arms: arm -> scores (B, P, S).
        same_seed: for each beta the place, among its models, of the one that shares the anchor's training seed; empty
            where a beta lacks it.

    Raises:
        ResultsError: fewer than two betas or prompts, or arrays of other shapes.
    """

    betas: tuple[float, ...]
    scratch: tuple[Floats, ...]
    arms: Mapping[str, Floats]
    same_seed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        shape = self.scratch[0].shape[1:]
        if len(self.betas) < 2 or shape[0] < 2:
            raise ResultsError(
                f"expected at least 2 betas and 2 prompts, got {len(self.betas)} and {shape[0]}: errors are told as a "
                "share of the spread between betas, and intervals need the spread between prompts"
            )
        wrong = {"from scratch": {t.shape[1:] for t in self.scratch} - {shape}}
        wrong |= {arm: {table.shape} - {(len(self.betas), *shape)} for arm, table in self.arms.items()}
        if len(self.scratch) != len(self.betas) or any(wrong.values()):
            raise ResultsError(f"expected scores of {len(self.betas)} betas x {shape} images, got {wrong}")

    @property
    def truth(self) -> Floats:
        """The mean over training seeds (B, P, S)."""
        return np.stack([table.mean(axis=0) for table in self.scratch])

    @property
    def own(self) -> Floats | None:
        """The models of the anchor's own training seed (B, P, S); None where a beta lacks it."""
        if not self.same_seed:
            return None
        return np.stack([table[place] for table, place in zip(self.scratch, self.same_seed, strict=True)])


@dataclass(frozen=True, kw_only=True)
class ArmDifference:
    """One arm at one beta, held against what it should be.

    Attributes:
        arm: its name.
        beta: KL strength that it stands for.
        mean: its mean score.
        error: mean difference to what it should be, in the units of the reward.
        share_of_spread: the error over the spread between betas, signed; None where there is no spread.
    """

    arm: str
    beta: float
    mean: float
    error: Interval
    share_of_spread: float | None


@dataclass(frozen=True, kw_only=True)
class Row(ArmDifference):
    """An arm held against models from scratch, in pairs of equal noise.

    Attributes:
        scratch_mean: mean score of the models from scratch.
        seed_noise_ratio: the absolute error over the seed noise; None where that isn't known or is 0.
        win_rate: share of images that score higher than from scratch, ties half; None for the null predictor, which
            draws none. The interval takes images to be independent.
        same_seed_share: the mean difference to the model of the anchor's own training seed, over the spread between the
            betas of that seed, signed: what is left without the noise between trainings; None where a beta lacks it.
        percent_of_mean: absolute error in % of the absolute mean from scratch, as in arXiv 2601.20198; None where that
            mean is 0.
    """

    scratch_mean: float
    seed_noise_ratio: float | None
    win_rate: Interval | None
    same_seed_share: float | None
    percent_of_mean: float | None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The largest minus the smallest mean from scratch over betas, in the units of the reward.

    Attributes:
        size: 0 or more.
        significant: whether it is above 0: paired t test over prompts at 5 %, corrected (Bonferroni) for looking at
            every pair of betas.
    """

    size: float
    significant: bool


def rows(scores: Scores) -> Iterator[Row]:
    """Every arm at every beta, the null predictor last."""
    truth, noise, size = scores.truth, seed_noise(scores), spread(scores).size
    # Where it predicts the mean over betas of every image, its mean is the mean over betas of means.
    arms = {**scores.arms, NULL: np.broadcast_to(truth.mean(axis=0), truth.shape)}
    for arm, tables in arms.items():
        shares = _same_seed_shares(tables, scores.own)
        for beta, table, scratch, mean, share in zip(scores.betas, tables, scores.scratch, truth, shares, strict=True):
            error = mean_interval(table - mean)
            yield Row(
                arm=arm,
                beta=beta,
                mean=float(table.mean()),
                scratch_mean=float(mean.mean()),
                error=error,
                share_of_spread=error.mean / size if size else None,
                seed_noise_ratio=abs(error.mean) / noise if noise else None,
                win_rate=None if arm == NULL else win_rate(table, scratch),
                same_seed_share=share,
                percent_of_mean=100 * abs(error.mean / mean.mean()) if mean.mean() else None,
            )


def _same_seed_shares(tables: Floats, own: Floats | None) -> list[float | None]:
    means = None if own is None else own.mean(axis=(1, 2))
    if means is None or not (size := float(means.max() - means.min())):
        return [None] * len(tables)
    return ((tables.mean(axis=(1, 2)) - means) / size).tolist()


def spread(scores: Scores) -> Spread:
    """How much beta matters: what errors are a share of."""
    truth = scores.truth
    means = truth.mean(axis=(1, 2))
    pairs = len(means) * (len(means) - 1) / 2
    difference = mean_interval(truth[means.argmax()] - truth[means.argmin()], level=1 - 0.05 / pairs)
    return Spread(size=difference.mean, significant=difference.low > 0)


def seed_noise(scores: Scores) -> float | None:
    """Mean over betas of the absolute mean paired difference between two training seeds; None where no beta has two."""
    noises = [
        np.mean([abs(np.mean(one - other)) for one, other in combinations(table, 2)])
        for table in scores.scratch
        if len(table) > 1
    ]
    return float(np.mean(noises)) if noises else None
