"""At which lams a question's guards hold.

A lam is refused where a guard fails by a one-sided paired t test over prompts at 5 %: each lam for itself, the careful
way round. It is refused too beyond a lam where a guard fails for having looked at all lams, by the largest t of all:
a fine grid then doesn't end early by one unlucky lam, and nothing is taken on the far side of a gap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deradiff.errors import ResultsError
from deradiff.recommend.ask import Ask, Guard
from deradiff.recommend.flips import band
from deradiff.recommend.intervals import Floats, interval
from deradiff.results import Results

BUDGET = "path KL"
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class _Limit:
    """One side of one guard: it fails where the mean slack (L,) is this far below 0."""

    slack: Floats  # (P, L), prompts' means
    alone: Floats  # (L,)
    among_all: Floats


class Holding:
    """What of a question limits the choice.

    Raises:
        ResultsError: a KL budget for a run that recorded no path KL.
    """

    def __init__(self, results: Results, question: Ask) -> None:
        self._zero = results.lams.index(0)
        self._limits = {guard: _limits(results, guard) for guard in question.guards}
        self._left = _left_of_budget(results, question.kl_budget)
        self._lams = len(results.lams)

    def allowed(self, weights: Floats | None = None) -> Bools:
        """Whether each lam may be taken (L,), or in every resample of the prompts (draws, L)."""
        over = np.zeros(self._lams, bool) if self._left is None else self._left < 0
        fails = surely = np.broadcast_to(over, (*(() if weights is None else (len(weights),)), self._lams))
        for limit in (limit for limits in self._limits.values() for limit in limits):
            slack = limit.slack.mean(axis=0) if weights is None else weights @ limit.slack
            fails = fails | (slack + limit.alone < 0)
            surely = surely | (slack + limit.among_all < 0)
        return ~fails & self._reached(~surely)

    def margins(self) -> dict[str, Floats]:
        """For each guard, and `BUDGET` where there is one, what is left before it fails at each lam (L,)."""
        told = {
            guard.reward: np.min([own.slack.mean(axis=0) + own.alone for own in limits], axis=0)
            for guard, limits in self._limits.items()
        }
        return told if self._left is None else told | {BUDGET: self._left}

    def failing(self) -> tuple[tuple[str, ...], ...]:
        """For each lam what fails there: names of rewards, and `BUDGET`."""
        margins = self.margins()
        return tuple(tuple(name for name, own in margins.items() if own[place] < 0) for place in range(self._lams))

    def _reached(self, holds: Bools) -> Bools:
        """Where all holds from the reference outwards."""
        above = np.logical_and.accumulate(holds[..., self._zero :], axis=-1)
        below = np.logical_and.accumulate(holds[..., self._zero :: -1], axis=-1)[..., ::-1]
        return np.concatenate([below[..., :-1], above], axis=-1)


def _limits(results: Results, guard: Guard) -> list[_Limit]:
    limits = []
    for slack in guard.slack(results):
        # A two-sided 90 % interval wholly below 0 is a one-sided test that rejects at 5 %.
        columns = [interval(slack[:, :, place], level=0.90) for place in range(slack.shape[2])]
        alone = np.array([column.high - column.mean for column in columns])
        means = slack.mean(axis=1)
        among_all = np.maximum(band(means, one_sided=True), alone)
        limits.append(_Limit(slack=means, alone=alone, among_all=among_all))
    return limits


def _left_of_budget(results: Results, budget: float | None) -> Floats | None:
    if budget is None:
        return None
    if results.path_kl is None:
        raise ResultsError("a KL budget needs path KL, which this run didn't record; sweep with diagnostics")
    return budget - results.path_kl.mean(axis=(0, 1))
