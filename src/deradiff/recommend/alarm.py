"""Is the objective hacked? It still rises while a reward it wasn't trained on turns, or pictures drift.

For every held-out reward and every lam_a < lam_b, prompt p has d_p = score(lam_a) - score(lam_b), and t is that of its
mean. If the reward never falls, t is no larger than where it is flat; there the sign of each prompt's d is a toss, the
same for all pairs of lams and all rewards, so tossing signs tells how large the largest t of them all would be (a
sign-flip test of the maximum, Winkler et al. 2014; Westfall & Young 1993): one p-value a reward, right for having
looked at every reward and every pair of lams. The objective must rise over the same pair by the same kind of test, so
that an alarm is false one time in twenty at most, whether the objective is flat or the held-out rewards are. Metrics
that should stay as they are count where they are more than `TOLERANCE` off the reference, on either side.
Where it begins is told by two segments, level and then falling, fitted by least squares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deradiff.recommend.curves import prompt_changes
from deradiff.recommend.flips import TOSSES, largest_t, t_values, tosses
from deradiff.recommend.intervals import Floats, Interval, interval
from deradiff.results import Results

LEVEL = 0.05
LEAST_PROMPTS = 6  # of fewer, not even all signs alike are rarer than 5 %
TOLERANCE = 0.25  # of the reference's mean, that a metric which should stay may move

Pair = tuple[int, int]  # places of two lams


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A sign that an objective is over-optimised.

    Attributes:
        objective: what still rises.
        reward: what turns.
        drifts: whether it should have stayed, and left the reference on either side.
        onset: the lam from which it falls.
        before: the lam it falls from.
        after: the lam it has fallen to, over the pair of lams where that is surest; of a drift, the first lam at which
            the tolerance is passed.
        change: of the held-out reward between the two.
        rise: of the objective between the two.
        p_value: of the fall, for having looked at all held-out rewards and pairs of lams.
    """

    objective: str
    reward: str
    drifts: bool
    onset: float
    before: float
    after: float
    change: Interval
    rise: Interval
    p_value: float


def alarms(results: Results, objectives: Sequence[str], *, flips: int = TOSSES, seed: int = 0) -> list[Alarm]:
    """Every held-out reward that turns while an objective rises, at 5 % of false alarms in all.

    Args:
        results: a sweep with lam = 0 among its lams; lams below 0 are left out.
        objectives: the rewards that are raised; all the others are held out.
        flips: tosses of the prompts' signs.
        seed: of the tosses.

    Returns:
        The surest first; none where there are fewer than `LEAST_PROMPTS` prompts.
    """
    held = [name for name in results.scores if name not in objectives and results.better.get(name) != "none"]
    if not held or len(results.prompts) < LEAST_PROMPTS:
        return []
    places = [place for place, lam in enumerate(results.lams) if lam >= 0]
    tests = [_Falls(results, name, places) for name in held]
    signs = tosses(len(results.prompts), flips, seed)
    largest = np.max([test.flipped(signs) for test in tests], axis=0)
    found: list[Alarm] = []
    for objective in objectives:
        rises = _rises(results, objective, places, signs)
        found += [alarm for test in tests if (alarm := test.alarm(results, objective, rises, largest)) is not None]
    return sorted(found, key=lambda alarm: alarm.p_value)


class _Falls:
    """All falls of one held-out reward: columns (P, pairs of lams)."""

    def __init__(self, results: Results, reward: str, places: list[int]) -> None:
        self.reward, self.drifts = reward, results.better.get(reward) == "steady"
        changes = prompt_changes(results, reward)
        if self.drifts:
            reference = results.scores[reward][:, :, places[0]].mean(axis=1)
            room, zero = TOLERANCE * np.abs(reference), places[0]
            self.pairs = [(zero, place) for place in places[1:]] * 2
            columns = [sign * changes[:, place] - room for sign in (1, -1) for place in places[1:]]
        else:
            self.pairs = _pairs(places)
            columns = [changes[:, a] - changes[:, b] for a, b in self.pairs]
        self.columns = np.stack(columns, axis=1)

    def flipped(self, signs: Floats) -> Floats:
        """The largest t under each toss of signs."""
        return largest_t(self.columns, signs)

    def alarm(self, results: Results, objective: str, rises: Mapping[Pair, bool], largest: Floats) -> Alarm | None:
        t = t_values(self.columns)
        p_values = _p_values(t, largest)
        found = np.flatnonzero([rises[pair] for pair in self.pairs] & (p_values <= LEVEL))
        if not len(found):
            return None
        place = int(min(found, key=lambda own: self.pairs[own]) if self.drifts else found[t[found].argmax()])
        (before, after), lams = self.pairs[place], results.lams
        tables = (results.scores[self.reward], results.scores[objective])
        change, rise = (interval(table[:, :, after] - table[:, :, before]) for table in tables)
        return Alarm(
            objective=objective,
            reward=self.reward,
            drifts=self.drifts,
            onset=self._onset(results, before, after),
            before=lams[before],
            after=lams[after],
            change=change,
            rise=rise,
            p_value=float(p_values[place]),
        )

    def _onset(self, results: Results, before: int, after: int) -> float:
        """Where a level and then a straight fall, joined, fit the mean over the pair's span best."""
        lams = np.array(results.lams[before : after + 1])
        means = results.scores[self.reward][:, :, before : after + 1].mean(axis=(0, 1))
        return float(min(lams[:-1], key=lambda lam: _misfit(np.maximum(lams - lam, 0), means)))


def _pairs(places: list[int]) -> list[Pair]:
    return [(a, b) for number, a in enumerate(places) for b in places[number + 1 :]]


def _rises(results: Results, objective: str, places: list[int], signs: Floats) -> dict[Pair, bool]:
    """Whether the objective rises between each two lams, for having looked at them all."""
    changes, pairs = prompt_changes(results, objective), _pairs(places)
    columns = np.stack([changes[:, b] - changes[:, a] for a, b in pairs], axis=1)
    p_values = _p_values(t_values(columns), largest_t(columns, signs))
    return dict(zip(pairs, (p_values <= LEVEL).tolist(), strict=True))


def _p_values(t: Floats, largest: Floats) -> Floats:
    return (1 + (largest[:, None] >= t).sum(axis=0)) / (1 + len(largest))


def _misfit(x: Floats, y: Floats) -> float:
    """Sum of squares that a straight line in x leaves of y."""
    design = np.stack([np.ones_like(x), x], axis=1)
    solved, *_ = np.linalg.lstsq(design, y, rcond=None)
    return float(np.square(design @ solved - y).sum())
