"""Confidence limits of a mean over prompts that also hold for few prompts and for counts.

Notation: x_1 ... x_P are the prompts' values, x_0 is the *pessimistic pseudo-prompt* (a value that an unsampled
prompt could have), mu is the mean over all prompts there could be.

The test of mu <= y is Efron's tilting (Efron 1981, section 11; DiCiccio & Romano 1990) with the pseudo-prompt added to
the sample: of all distributions on x_0 ... x_P with mean y take the likeliest, w_i = 1 / ((P + 1)(1 + l (x_i - y))),
as empirical likelihood does (Owen 1988). The p-value is the probability that P draws from it have a mean of at least
the one observed, computed exactly on a grid of values by the fast Fourier transform. For 0/1 values, with x_0 the worst
value possible, it equals Clopper and Pearson's. A lower limit is the y at which the p-value equals the risk; an upper
limit is minus the lower limit of -x.

Where the worst value is not known, x_0 = min x_i - ``PESSIMISM`` risk^(-1/(P - 1)) s, with s the standard deviation of
the prompts below the mean (of twice their squares, so that it is the usual one where both tails are alike). The power
of risk is how far s may fall short of the truth: P values lie within a fraction f of their true spread with a
probability of the order of f^(P - 1). The constant makes the limit hold for exponential tails at any P
(``benchmarks/answer.py``). No rule holds for tails of which the sample shows nothing; a declared worst value does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri

Floats = NDArray[np.float64]

PESSIMISM = 1.8
_BINS = 256  # of the range of values; a sum of P rounded values errs by sqrt(P / 12) of them
_WINDOW = 8.0  # standard deviations of a sum to either side that are kept
_FIRST = 1.5  # times the usual standard error below the mean where the search for a limit starts
_STEPS = 20  # of the root search, at most; each gains a digit or more
_CLOSE = 1e-5  # of the normal quantile of the risk, at which it ends
_BALANCED = 1e-12  # mean of tilted values that counts as 0, in units of their size


@dataclass(frozen=True, kw_only=True)
class PromptMeans:
    """Values of P prompts at K questions, such as changes of a reward at K lams.

    Attributes:
        means: (P, K), each prompt's mean over its seeds; nan where it has none.
        noise: (K,), the standard error of a prompt's mean that the spread of its seeds gives; 0 of single seeds.
        lowest: (K,), the smallest mean that a prompt could have; nan where nothing bounds it.
        highest: (K,), likewise the largest.
    """

    means: Floats
    noise: Floats
    lowest: Floats
    highest: Floats

    def __neg__(self) -> "PromptMeans":
        """The same of the negated values: an upper limit is a lower limit of these."""
        return PromptMeans(means=-self.means, noise=self.noise, lowest=-self.highest, highest=-self.lowest)

    def __getitem__(self, columns: object) -> "PromptMeans":
        """Some of the K questions, by an index array or mask."""
        means, noise, lowest, highest = (
            part[..., columns]  # pyright: ignore[reportArgumentType, reportCallIssue]
            for part in (self.means, self.noise, self.lowest, self.highest)
        )
        return PromptMeans(means=means, noise=noise, lowest=lowest, highest=highest)

    @property
    def centre(self) -> Floats:
        """The mean over prompts, (K,); nan where there are none."""
        return _divide(np.nansum(self.means, axis=0), self.counts)

    @property
    def scale(self) -> Floats:
        """The standard deviation between prompts, (K,), never less than their noise: few may agree by luck."""
        squares = np.nansum(np.square(self.means - self.centre), axis=0)
        return np.sqrt(np.maximum(squares / np.maximum(self.counts - 1, 1), np.square(self.noise)))

    @property
    def scale_below(self) -> Floats:
        """The same of the prompts below the mean, (K,): larger than ``scale`` where the lower tail is longer."""
        squares = np.nansum(np.square(np.minimum(self.means - self.centre, 0)), axis=0)
        return np.sqrt(np.maximum(2 * squares / np.maximum(self.counts - 1, 1), np.square(self.noise)))

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Whether all prompts agree but for rounding, so that their spread says nothing, (K,)."""
        return self.scale <= 1e-12 * np.nan_to_num(np.abs(self.means)).max(axis=0, initial=1e-300)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many prompts have a value, (K,)."""
        return np.isfinite(self.means).sum(axis=0)


def stack(samples: Sequence[PromptMeans]) -> PromptMeans:
    """The questions of several samples of as many prompts, one after another."""
    return PromptMeans(
        means=np.hstack([sample.means for sample in samples]),
        noise=np.concatenate([sample.noise for sample in samples]),
        lowest=np.concatenate([sample.lowest for sample in samples]),
        highest=np.concatenate([sample.highest for sample in samples]),
    )


def prompt_means(pairs: Floats, lowest: Floats | float = np.nan, highest: Floats | float = np.nan) -> PromptMeans:
    """Summarise values of images by prompt.

    Args:
        pairs: (P, S, K), a value of each prompt and seed; nan where there is no image.
        lowest: (K,) or one for all, the smallest mean that a prompt could have; nan where nothing bounds it.
        highest: likewise the largest.
    """
    count = np.isfinite(pairs).sum(axis=1)
    means = _divide(np.nansum(pairs, axis=1), count)
    spare = np.maximum(count - 1, 0).sum(axis=0)
    variance = np.nan_to_num(_divide(np.nansum(np.square(pairs - means[:, None]), axis=(0, 1)), spare))
    per_prompt = np.nan_to_num(_divide(np.nansum(_divide(1, count), axis=0), (count > 0).sum(axis=0)))
    bounds = [np.broadcast_to(np.asarray(bound, dtype=float), variance.shape) for bound in (lowest, highest)]
    return PromptMeans(means=means, noise=np.sqrt(variance * per_prompt), lowest=bounds[0], highest=bounds[1])


def _divide(total: Floats | float, count: NDArray[np.int64]) -> Floats:
    """total / count, nan where there is nothing to count."""
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def p_values(sample: PromptMeans, risk: float, threshold: float = 0.0) -> Floats:
    """Of each question, the p-value (K,) of "the mean is at most ``threshold``", one-sided; 1 of fewer than 2 prompts.

    Args:
        sample: the prompts' values.
        risk: the level at which it will be compared, in (0, 1): the unbounded pseudo-prompt depends on it.
        threshold: the mean under the null hypothesis.
    """
    return _tail(_Columns.from_sample(sample, risk), np.full(len(sample.noise), threshold))


def lower_limits(sample: PromptMeans, risk: float) -> Floats:
    """One-sided lower confidence limits (K,) of the means: each is above the truth with a probability of ``risk``.

    -inf of fewer than 2 prompts.
    """
    columns = _Columns.from_sample(sample, risk)
    # where all prompts agree all draws must: p = ((y - worst) / (mean - worst)) ** P
    alike = columns.worst + (columns.mean - columns.worst) * risk ** (1 / np.maximum(columns.count, 1))
    limits = np.where(columns.answerable, alike, -np.inf)
    differ = columns.answerable & ~columns.tied
    if differ.any():
        limits[differ] = _roots(columns[differ], risk)
    return limits


def _roots(columns: "_Columns", risk: float) -> Floats:
    """The thresholds (K,) at which p is the risk; all columns are answerable, and their prompts differ."""
    # Phi^-1(p) is nearly a straight line of the threshold, so regula falsi (with Illinois' halving) needs few steps.
    low, high = columns.worst.copy(), columns.mean.copy()
    target = ndtri(risk)
    at_low, at_high = np.full(len(low), -8.0 - target), np.maximum(ndtri(_clipped(_tail(columns, high))) - target, 1e-9)
    side, reach = np.zeros(len(low)), _FIRST * max(-target, 0.2) * columns.error
    reach = np.where(columns.error > 1e-3 * (high - low), reach, np.inf)  # of prompts that hardly differ it says little
    for _ in range(_STEPS):
        guess = np.clip((low * at_high - high * at_low) / (at_high - at_low), low, high)
        # Far below the limit weights are spread widely, which takes long, so it is approached from above.
        guess = np.where(low == columns.worst, np.maximum(guess, high - reach), guess)
        reach = 2 * reach
        value = ndtri(_clipped(_tail(columns, guess))) - target
        if (np.abs(value) < _CLOSE).all():
            return guess
        above = value >= 0
        at_low = np.where(above, np.where(side == 1, at_low / 2, at_low), value)
        at_high = np.where(above, value, np.where(side == -1, at_high / 2, at_high))
        low, high = np.where(above, low, guess), np.where(above, guess, high)
        side = np.where(above, 1, -1)
    return low


def upper_limits(sample: PromptMeans, risk: float) -> Floats:
    """One-sided upper confidence limits (K,): each is below the truth with a probability of ``risk``."""
    return -lower_limits(-sample, risk)


@dataclass(frozen=True)
class _Columns:
    """Questions as the test sees them: values (P + 1, K), the pseudo-prompt last; gaps are masked out.

    ``error`` is about the standard error of the mean.
    """

    values: Floats
    present: NDArray[np.bool_]
    worst: Floats
    mean: Floats
    error: Floats
    answerable: NDArray[np.bool_]

    def __getitem__(self, which: NDArray[np.bool_]) -> "_Columns":
        """Some of them."""
        return _Columns(*(getattr(self, field.name)[..., which] for field in fields(self)))

    @property
    def count(self) -> NDArray[np.int64]:
        """Prompts, (K,)."""
        return self.present[:-1].sum(axis=0)

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Whether all prompts agree but for rounding, (K,)."""
        return self.error <= 1e-12 * np.maximum(np.abs(self.mean), self.mean - self.worst)

    @classmethod
    def from_sample(cls, sample: PromptMeans, risk: float) -> "_Columns":
        present, count = np.isfinite(sample.means), sample.counts
        answerable = count >= 2
        filled = np.where(present, sample.means, 0.0)
        smallest = np.where(present, sample.means, np.inf).min(axis=0)
        mean = filled.sum(axis=0) / np.maximum(count, 1)
        reach = PESSIMISM * risk ** (-1 / np.maximum(count - 1, 1)) * sample.scale_below
        worst = np.where(np.isfinite(sample.lowest), np.minimum(sample.lowest, smallest), smallest - reach)
        worst = np.where(answerable, worst, mean)
        values = np.where(present, sample.means, mean)
        error = np.sqrt(np.square(values - mean).sum(axis=0)) / np.maximum(count, 1)
        there = np.vstack([present, np.ones(len(count), bool)])
        return cls(np.vstack([values, worst]), there, worst, mean, error, answerable)


def _tail(columns: _Columns, threshold: Floats) -> Floats:
    """P(mean of as many draws >= the observed one) under the tilted distribution of mean ``threshold``, (K,)."""
    shifted = columns.values - threshold
    result = np.where(columns.answerable & (columns.worst >= threshold), 0.0, 1.0)
    todo = columns.answerable & (columns.worst < threshold) & (np.where(columns.present, shifted, 0).max(axis=0) > 0)
    if todo.any():
        present = columns.present[:, todo]
        weights = _tilted(shifted[:, todo], present)
        each = zip(columns.values[:, todo].T, weights.T, present.T, strict=True)
        result[todo] = [_sum_tail(values[there], chances[there]) for values, chances, there in each]
    return result


def _tilted(shifted: Floats, present: NDArray[np.bool_]) -> Floats:
    """The likeliest weights (P + 1, K) under which each column of values has mean 0; columns have both signs."""
    values = np.where(present, shifted, 0.0)
    # each weight, 1 / (n (1 + tilt value)), is at most 1, which bounds the tilt away from where one divides by 0
    inside = 1 - 1 / present.sum(axis=0)
    low, high = -inside / values.max(axis=0), -inside / values.min(axis=0)
    tilt = (low + high) / 2
    for _ in range(60):  # Newton's method, or bisection where that would leave the bracket
        terms = values / (1 + tilt * values)
        excess, slope = terms.sum(axis=0), np.square(terms).sum(axis=0)
        if (np.abs(excess) <= _BALANCED * np.sqrt(slope)).all():
            break
        low, high = np.where(excess > 0, tilt, low), np.where(excess > 0, high, tilt)
        newton = tilt + excess / slope
        tilt = np.where((low <= newton) & (newton <= high), newton, (low + high) / 2)
    weights = np.where(present, 1 / (1 + tilt * values), 0.0)
    return weights / weights.sum(axis=0)


def _sum_tail(values: Floats, weights: Floats) -> float:
    """P(sum of n draws >= sum of the first n values), of values (n + 1,) and their probabilities."""
    count, least = len(values) - 1, values.min()
    bins = np.rint((values - least) * (_BINS / (values.max() - least))).astype(np.int64)
    observed, mean = int(bins[:-1].sum()), float(weights @ bins)
    deviation = sqrt(float(weights @ np.square(bins - mean)))
    reach = ceil(_WINDOW * deviation * sqrt(count) + _BINS)
    length: Any = next_fast_len(min(2 * reach, count * _BINS) + 1, real=True)  # an int, which its decorator hides
    # the smallest sum in the window, which ends at the largest sum possible
    first = min(max(ceil(count * mean - length / 2), 0), max(count * _BINS + 1 - length, 0))
    if observed < first:
        return 1.0
    mass = np.bincount(bins % length, weights, length)
    density: Floats = np.asarray(irfft(_power(np.asarray(rfft(mass)), count), n=length))
    return float(np.clip(density.take(np.arange(observed, first + length), mode="wrap").sum(), 0, 1))


def _power(base: NDArray[np.complex128], exponent: int) -> NDArray[np.complex128]:
    """base ** exponent, for an exponent of 1 or more, by repeated squaring."""
    result = base.copy()
    for bit in bin(exponent)[3:]:
        result *= result
        if bit == "1":
            result *= base
    return result


def _clipped(p: Floats) -> Floats:
    return np.clip(p, 1e-15, 1 - 1e-15)
