"""Intervals of means and shares over images that come in clusters: the images of one prompt are alike."""

from dataclasses import dataclass
from math import ceil, log10

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import beta as beta_distribution

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over prompts and its confidence limits, in the units of the reward."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = self.figures
        return f"{mean} (95 % interval {low} to {high})"

    @property
    def figures(self) -> tuple[str, str, str]:
        """Mean, low and high in words, signed, with the digits that the width of the interval supports."""
        width = self.high - self.low
        decimals = min(max(2 - ceil(log10(width)), 0), 6) if width > 0 else 3
        mean, low, high = (f"{value:+.{decimals}f}" for value in (self.mean, self.low, self.high))
        return mean, low, high


def interval(values: Floats, level: float = 0.95) -> Interval:
    """Student t interval of the mean over P >= 2 prompts, from values (P, S)."""
    means = values.mean(axis=1)
    mean = float(means.mean())
    quantile = stdtrit(len(means) - 1, (1 + level) / 2)
    half = float(quantile * means.std(ddof=1) / np.sqrt(len(means)))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def win_rate(table: Floats, other: Floats) -> Interval:
    """Share of images (P, S) that score above their pair, ties half; exact 95 % limits for clustered images.

    Against several others, (..., P, S), the meetings of an image together count as one trial. Clopper-Pearson with as
    many trials as independent images would be worth that vary as the prompts' shares do (Korn & Graubard 1998), at
    most P x S.
    """
    wins = ((table > other) + 0.5 * (table == other)).reshape(-1, *table.shape).mean(axis=0)
    share, trials = float(wins.mean()), float(wins.size)
    spread = float(wins.mean(axis=1).var(ddof=1)) / len(wins)
    if spread > 0:
        quantiles = stdtrit([wins.size - 1, len(wins) - 1], 0.975)
        trials = min(trials, share * (1 - share) / spread * float((quantiles[0] / quantiles[1]) ** 2))
    won = share * trials
    low = beta_distribution.ppf(0.025, won, trials - won + 1) if share > 0 else 0.0
    high = beta_distribution.ppf(0.975, won + 1, trials - won) if share < 1 else 1.0
    return Interval(mean=share, low=float(low), high=float(high))
