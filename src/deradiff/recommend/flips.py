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


def step_down(columns: Floats, signs: Floats) -> Floats:
    """p-values (K,) of means above 0, one-sided, right for having looked at all columns (P, K).

    The largest t is held against the largest of all in each toss, the next one against the largest of the others, and
    so on, each p at least that of the one before: what surely rises no longer hides the rest (Westfall & Young 1993,
    algorithm 2.8; Romano & Wolf 2005).
    """
    t = t_values(columns, np.vstack([np.ones(len(columns)), signs]))  # what was seen is one of the tosses
    smallest_first = np.argsort(t[0])
    largest = np.maximum.accumulate(t[:, smallest_first], axis=1)
    alone = (largest >= t[0, smallest_first]).mean(axis=0)
    p_values = np.empty_like(alone)
    p_values[smallest_first] = np.maximum.accumulate(alone[::-1])[::-1]
    return p_values


def band(means: Floats, *, one_sided: bool = False) -> Floats:
    """Half widths (K,) of a 95 % band around the means of columns (P, K), all at once; below them if one-sided."""
    prompts, count = means.shape
    t = t_values(means - means.mean(axis=0), tosses(prompts))
    largest = (t if one_sided else np.abs(t)).max(axis=1)
    # few prompts have too few tosses: never wider than Bonferroni's
    widest = stdtrit(prompts - 1, 1 - (0.05 if one_sided else 0.025) / count)
    quantile = min(np.quantile(largest, 0.95, method="inverted_cdf"), widest)
    return quantile * means.std(axis=0, ddof=1) / np.sqrt(prompts)
