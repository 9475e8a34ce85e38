"""Intervals, and what looking at many lams at once costs them. Images come in clusters: those of one prompt are alike.

All limits are those of `deradiff.analysis.limits`. Where K of them are to hold together, each is made at a smaller
level: the one at which the largest of K t values exceeds its critical value with the wanted probability when the signs
of prompts are flipped (Winkler et al. 2014), the same flip for all K, which keeps how they go together.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log10

import numpy as np
from scipy.special import stdtr

from deradiff.analysis.limits import Floats, PromptMeans, lower_limits, prompt_means, upper_limits

FLIPS = 2000
LEVEL = 0.95  # of every interval that is printed


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over prompts and its confidence limits, in the units of the reward."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = self.figures
        return f"{mean} (95% interval {low} to {high})"

    @property
    def figures(self) -> tuple[str, str, str]:
        """Mean, low and high as text, signed, with the digits that the width of the interval supports."""
        width = self.high - self.low
        decimals = min(max(2 - ceil(log10(width)), 0), 6) if 0 < width < np.inf else 3
        mean, low, high = (f"{value:+.{decimals}f}" for value in (self.mean, self.low, self.high))
        return mean, low, high


def intervals(sample: PromptMeans, level: float = LEVEL) -> list[Interval]:
    """Two-sided intervals of K means at a confidence level in (0, 1); infinite of fewer than 2 prompts."""
    risk = (1 - level) / 2
    limits = zip(sample.centre, lower_limits(sample, risk), upper_limits(sample, risk), strict=True)
    return [Interval(mean=float(mean), low=float(low), high=float(high)) for mean, low, high in limits]


def mean_interval(values: Floats, level: float = LEVEL, lowest: float = np.nan, highest: float = np.nan) -> Interval:
    """The interval of a mean over P >= 2 prompts, from values (P, S) of their images.

    Args:
        values: one an image.
        level: of confidence, in (0, 1).
        lowest: the smallest mean that a prompt could have; nan where nothing bounds it.
        highest: likewise the largest.
    """
    sample = prompt_means(values[:, :, None], lowest, highest)
    if sample.tied[0] and not np.isfinite([lowest, highest]).all():
        # All prompts agree, which says nothing of the spread: another may differ by as much as the mean.
        mean = float(np.nanmean(sample.means))
        reach = abs(mean) or 1.0
        sample = prompt_means(values[:, :, None], mean - reach, mean + reach)
    return intervals(sample, level)[0]


def win_rates(table: Floats, other: Floats) -> list[Interval]:
    """Share of images that score above their pair, ties half, in [0, 1], with 95% limits.

    An unsampled prompt may win or lose all, so the limits hold however alike the images of a prompt are. Limits are
    infinite, around nan, where there are no pairs.

    Args:
        table: (P, S, K), scores of K kinds of images.
        other: (P, S, K), the scores of their pairs.
    """
    wins = np.where(np.isfinite(table) & np.isfinite(other), (table > other) + 0.5 * (table == other), np.nan)
    return intervals(prompt_means(wins, lowest=0.0, highest=1.0))


def win_rate(table: Floats, other: Floats) -> Interval:
    """`win_rates` of one kind of images (P, S); against several others, (..., P, S), their comparisons count as one."""
    wins = (table > other) + 0.5 * (table == other)
    return mean_interval(wins.reshape(-1, *table.shape).mean(axis=0), lowest=0.0, highest=1.0)


@lru_cache(maxsize=4)
def sign_flips(prompts: int, count: int = FLIPS, seed: int = 0) -> Floats:
    """Signs (count, P), the same for the same seed."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, prompts))


def t_values(columns: Floats, signs: Floats | None = None) -> Floats:
    """t of the mean of each column: (K,), or (flips, K) with the prompts' signs flipped.

    Args:
        columns: (P, K), nan for gaps.
        signs: (flips, P).
    """
    filled, count = np.nan_to_num(columns), np.isfinite(columns).sum(axis=0)
    means = (filled.sum(axis=0) if signs is None else signs @ filled) / count
    squares = np.square(filled).sum(axis=0) / count  # signs leave them alone
    variance = np.maximum(squares - np.square(means), 0)
    variance = np.where(variance < 1e-12 * squares, 0, variance)  # rounding: all prompts agree
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(means / np.sqrt(variance / (count - 1)), posinf=np.inf, neginf=-np.inf)


def simultaneous_risk(columns: Floats, risk: float, *, two_sided: bool = False) -> float:
    """The risk of each of K limits of which any may err with a probability of ``risk``; between risk / K and risk.

    Args:
        columns: (P, K), prompts' values, nan for gaps; their means don't matter.
        risk: of any of the K limits, one-sided; if ``two_sided`` of both limits of any.
        two_sided: whether the limits are on both sides: each then has the risk returned.
    """
    prompts, count = columns.shape
    present, sides = np.isfinite(columns), 2 if two_sided else 1
    fewest = int(present.sum(axis=0).min(initial=prompts))
    if count == 0 or fewest < 2:
        return risk / sides / max(count, 1)
    centred = columns[present.any(axis=1)] - np.nanmean(columns, axis=0)
    centred = centred[np.lexsort(np.nan_to_num(centred).T)]  # so that the order of prompts does not matter
    t = t_values(centred, sign_flips(len(centred)))
    largest = np.quantile((np.abs(t) if two_sided else t).max(axis=1), 1 - risk, method="inverted_cdf")
    alone = float(stdtr(fewest - 1, -largest)) if np.isfinite(largest) else 0.0
    return float(np.clip(alone, risk / sides / count, risk / sides))
