"""Is the objective hacked? It still rises while a reward it wasn't trained on turns, or pictures drift.

For every held-out reward and every lam_a < lam_b, prompt p has d_p = score(lam_a) - score(lam_b), and t is that of its
mean. If the reward never falls, t is no larger than where it is flat; there the sign of each prompt's d is a toss, the
same for all pairs of lams and all rewards, so tossing signs tells how large the largest t of them all would be: one
p-value a reward and pair, right for having looked at them all (`flips.step_down`). The objective must rise over the
same pair by the same kind of test, so that an alarm is false one time in twenty at most, whether the objective is flat
or the held-out rewards are. Metrics that should stay as they are count where they are more than a tolerance off the
reference, on either side. Where it begins is told by two segments, level and then falling, fitted by least squares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deradiff.recommend.falls import Columns, Pair, drifts, falls, onset, rises
from deradiff.recommend.flips import TOSSES, step_down, t_values, tosses
from deradiff.recommend.intervals import Floats, Interval, interval
from deradiff.results import Results

LEVEL = 0.05
LEAST_PROMPTS = 6  # of fewer, not even all signs alike are rarer than 5 %


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """The surest sign that an objective is over-optimised at the cost of one held-out reward, significant or not.

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
        t: of the fall, or of what is beyond the tolerance.
        p_value: of the fall and of the rise, the larger; for having looked at all held-out rewards and pairs of lams.
    """

    objective: str
    reward: str
    drifts: bool
    onset: float
    before: float
    after: float
    change: Interval
    rise: Interval
    t: float
    p_value: float

    @property
    def raised(self) -> bool:
        """Whether the sign is significant."""
        return self.p_value <= LEVEL


def alarms(
    results: Results, objectives: Sequence[str], guards: Sequence[str] = (), *, flips: int = TOSSES, seed: int = 0
) -> list[Alarm]:
    """An alarm, raised or silent, for every held-out reward and objective, at 5 % of false ones in all.

    Args:
        results: a sweep with lam = 0 among its lams; lams below 0 are left out.
        objectives: the rewards that are raised; all the others are held out.
        guards: those of the others that were named to be watched. They have half of the 5 % for themselves, so that
            many more metrics beside them can't drown them.
        flips: tosses of the prompts' signs.
        seed: of the tosses.

    Returns:
        The surest first; none where there are fewer than `LEAST_PROMPTS` prompts, or a single lam from 0 on.
    """
    held = [name for name in results.scores if name not in objectives and results.better.get(name) != "none"]
    places = [place for place, lam in enumerate(results.lams) if lam >= 0]
    if not held or len(results.prompts) < LEAST_PROMPTS or len(places) < 2:
        return []
    signs = tosses(len(results.prompts), flips, seed)
    turns = {name: _turns(results, name, places) for name in held}
    families = [[name for name in held if (name in guards) == named] for named in (True, False)]
    turning = _p_values(turns, [family for family in families if family], signs)
    found: list[Alarm] = []
    for objective in objectives:
        columns = rises(results, objective, places)
        rising = dict(zip(columns.pairs, step_down(columns.values, signs).tolist(), strict=True))
        found += [_alarm(results, objective, name, turns[name], p_values, rising) for name, p_values in turning.items()]
    return sorted(found, key=lambda alarm: (alarm.p_value, -alarm.t))


def _p_values(turns: Mapping[str, Columns], families: Sequence[Sequence[str]], signs: Floats) -> dict[str, Floats]:
    """By reward the p-value of each of its turns, for having looked at all turns of all families."""
    found: dict[str, Floats] = {}
    for family in families:
        own = step_down(np.hstack([turns[name].values for name in family]), signs) * len(families)
        ends = np.cumsum([len(turns[name].pairs) for name in family])[:-1]
        found |= dict(zip(family, np.split(np.minimum(own, 1), ends), strict=True))
    return found


def _turns(results: Results, reward: str, places: list[int]) -> Columns:
    return (drifts if _steady(results, reward) else falls)(results, reward, places)


def _steady(results: Results, reward: str) -> bool:
    return results.better.get(reward) == "steady"


def _alarm(
    results: Results, objective: str, reward: str, turns: Columns, turning: Floats, rising: Mapping[Pair, float]
) -> Alarm:
    """The surest of a reward's turns, from p-values of each and of the objective's rise over the same pair."""
    t, steady, lams = t_values(turns.values), _steady(results, reward), results.lams
    p_values = np.maximum(turning, [rising[pair] for pair in turns.pairs])
    found = np.flatnonzero(p_values <= LEVEL)
    if steady and len(found):
        place = int(min(found, key=lambda own: turns.pairs[own]))
    else:
        place = min(range(len(t)), key=lambda own: (p_values[own], -t[own]))
    before, after = turns.pairs[place]
    change, rise = (
        interval(table[:, :, after] - table[:, :, before])
        for table in (results.scores[reward], results.scores[objective])
    )
    return Alarm(
        objective=objective,
        reward=reward,
        drifts=steady,
        onset=onset(results, reward, before, after),
        before=lams[before],
        after=lams[after],
        change=change,
        rise=rise,
        t=float(t[place]),
        p_value=float(p_values[place]),
    )
