"""Tests and bands for many lams at once, by tossing the signs of prompts.

Where a mean is 0, the sign of each prompt's value is a toss. Tossing it alike in all columns keeps how they go
together, so the largest t over the columns of a toss tells how large the largest t is by chance (Winkler et al. 2014).
Each toss has a standard error of its own, for which few prompts are not taken for many.
"""

from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

from deradiff.recommend.intervals import Floats

TOSSES = 2000


@lru_cache(maxsize=4)
def tosses(prompts: int, count: int = TOSSES, seed: int = 0) -> Floats:
    """Signs (count, P), the same for the same seed."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, prompts))


def t_values(columns: Floats, signs: Floats | None = None) -> Floats:
    """t of the mean of each column (P, K): (K,), or (tosses, K) under tosses of the prompts' signs."""
    means = columns.mean(axis=0) if signs is None else signs @ columns / len(columns)
    squares = np.square(columns).mean(axis=0)  # signs leave them alone
    variance = np.maximum(squares - np.square(means), 0)
    variance = np.where(variance < 1e-12 * squares, 0, variance)  # rounding: all prompts agree
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(means / np.sqrt(variance / (len(columns) - 1)), posinf=np.inf, neginf=-np.inf)


def largest_t(columns: Floats, signs: Floats) -> Floats:
    """The largest t over the columns (P, K) in each toss: (tosses,)."""
    return t_values(columns, signs).max(axis=1)


def band(means: Floats, *, one_sided: bool = False) -> Floats:
    """Half widths (K,) of a 95 % band around the means of columns (P, K), all at once; below them if one-sided."""
    prompts, count = means.shape
    t = t_values(means - means.mean(axis=0), tosses(prompts))
    largest = (t if one_sided else np.abs(t)).max(axis=1)
    # few prompts have too few tosses: never wider than Bonferroni's
    widest = stdtrit(prompts - 1, 1 - (0.05 if one_sided else 0.025) / count)
    quantile = min(np.quantile(largest, 0.95, method="inverted_cdf"), widest)
    return quantile * means.std(axis=0, ddof=1) / np.sqrt(prompts)
