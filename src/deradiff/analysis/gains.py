"""What is known of the objective's gain over lam = 0 at each lam: the same questions to scores and to votes.

`PromptGains` answers them from paired changes of scores. The largest of several means is biased upwards by selection,
so the gain is estimated by leaving out one prompt at a time: the lam is chosen without it, and the gain is its change
at that lam. The gain's limits hold for all lams that could have been chosen at once (`simultaneous_risk`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deradiff.analysis.criteria import Prefer
from deradiff.analysis.guards import Bools
from deradiff.analysis.limits import Floats, PromptMeans, p_values, prompt_means
from deradiff.analysis.statistics import LEVEL, Interval, intervals, simultaneous_risk

PromptTests = list[tuple[PromptMeans, float]]


class Gains(Protocol):
    """The gain at each of L lams over the lam at index ``zero``."""

    @property
    def means(self) -> Floats:
        """(L,), the mean gain; nan where nothing is known."""
        ...

    @property
    def errors(self) -> Floats:
        """(L,), its standard error."""
        ...

    def is_shown(self, index: int, rivals: Sequence[int], risk: float) -> bool:
        """Whether the gain at a lam is shown to be above 0, given that it was chosen among its rivals."""
        ...

    def estimate(self, index: int, shown: Bools, zero: int, prefer: Prefer) -> Interval:
        """The gain at a lam that was chosen among those ``shown`` to hold."""
        ...

    def possible_best(self, shown: Bools, candidates: Sequence[int]) -> list[int]:
        """The candidates that may have the largest gain, at 95%: not beaten by a lam that is ``shown`` to hold."""
        ...

    def prompt_tests(self, index: int, rivals: Sequence[int], risk: float) -> PromptTests | None:
        """What more prompts must show of the gain at a lam; None where prompts alone can't."""
        ...


def best_indices(means: Floats, errors: Floats, allowed: Bools, zero: int, prefer: Prefer) -> np.ndarray:
    """For each row of means (N, L) the index of the lam to take, by ``prefer`` among the allowed lams."""
    from_zero = np.abs(np.arange(means.shape[1]) - zero)
    masked = np.where(allowed & np.isfinite(means), means, -np.inf)
    top = masked.max(axis=1, keepdims=True)
    best = np.argmin(np.where(masked == top, from_zero, np.inf), axis=1)
    if prefer == "best":
        return best
    close = masked >= top - errors[best][:, None]
    return np.argmin(np.where(close, from_zero, np.inf), axis=1)


def rival_indices(shown: Bools, zero: int) -> list[int]:
    """Indices of the lams that could have been chosen."""
    return [index for index in np.flatnonzero(shown).tolist() if index != zero]


@dataclass(frozen=True)
class PromptGains:
    """Each prompt's gain at each lam, (P, L)."""

    sample: PromptMeans

    @property
    def means(self) -> Floats:
        """As `Gains`."""
        return np.nanmean(self.sample.means, axis=0)

    @property
    def errors(self) -> Floats:
        """As `Gains`."""
        return self.sample.scale / np.sqrt(np.maximum(self.sample.counts, 1))

    def is_shown(self, index: int, rivals: Sequence[int], risk: float) -> bool:
        """As `Gains`."""
        ((sample, each),) = self.prompt_tests(index, rivals, risk)  # two-sided, as the interval printed
        return bool(p_values(sample, each)[0] <= each)

    def estimate(self, index: int, shown: Bools, zero: int, prefer: Prefer) -> Interval:
        """As `Gains`; with each prompt left out of its own choice."""
        values = self.sample.means
        present = np.isfinite(values)
        filled, count = np.where(present, values, 0), present.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = (filled.sum(axis=0) - filled) / (count - present)
        picks = best_indices(left_out, self.errors, shown, zero, prefer)
        mean = float(np.nanmean(values[np.arange(len(picks)), picks]))
        each = simultaneous_risk(values[:, rival_indices(shown, zero)], 1 - LEVEL, two_sided=True)
        at_index = intervals(self.sample[[index]], 1 - 2 * each)[0]
        return Interval(mean=mean, low=min(at_index.low, mean), high=max(at_index.high, mean))

    def possible_best(self, shown: Bools, candidates: Sequence[int]) -> list[int]:
        """As `Gains`."""
        pairs = [(j, k) for j in np.flatnonzero(shown).tolist() for k in candidates if j != k]
        if not pairs:
            return list(candidates)
        better, worse = (np.array(side) for side in zip(*pairs, strict=True))
        differences = prompt_means((self.sample.means[:, better] - self.sample.means[:, worse])[:, None])
        each = simultaneous_risk(differences.means, 1 - LEVEL)
        beaten = set(worse[p_values(differences, each) <= each].tolist())
        return [index for index in candidates if index not in beaten]

    def prompt_tests(self, index: int, rivals: Sequence[int], risk: float) -> PromptTests:
        """As `Gains`."""
        return [(self.sample[[index]], simultaneous_risk(self.sample.means[:, list(rivals)], risk, two_sided=True))]
