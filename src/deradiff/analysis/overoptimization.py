"""Is the objective hacked? It still rises while a reward it wasn't trained on falls, or an image metric drifts.

For every held-out reward and every two lams a < b, prompt p has d_p = score(a) - score(b), and the question is whether
the mean of d over prompts is above 0. All questions are tested together; each p-value is the larger of two, both by the
largest t of all questions, stepping down (Westfall & Young 1993, algorithm 2.8):

- *sign flips*: exact at any number of prompts where the changes of prompts are symmetric;
- *bootstrap-t*: prompts resampled, t* = (mean* - mean) / se* (Efron 1981; Romano & Wolf 2005), which is right for
  skewed changes as prompts grow. Some resamples of few prompts have hardly any spread, so se* has a floor.

The objective must rise over the same two lams by the same kind of test. Assumed: prompts are a random sample, and every
group of prompts that matters to the mean is in it. P prompts miss a group of a share m with a probability of (1 - m)^P:
`missable_share`, which an alarm states. ``benchmarks/answer.py`` measures false alarms and power.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deradiff.analysis.criteria import Criteria, Guard, resolve_margin
from deradiff.analysis.curves import is_discrete
from deradiff.analysis.limits import Floats
from deradiff.analysis.statistics import FLIPS, Interval, mean_interval, sign_flips, t_values
from deradiff.errors import ResultsError
from deradiff.results import Results

LEVEL = 0.04  # tested at; skewed changes of few prompts raise the measured rate of false alarms to .07
LEAST_PROMPTS = 10
MISSABLE = 0.1  # share of prompts that may be missing from a sample in which all prompts change exactly alike
_FLOOR = 4.0  # se* is at least sqrt(_FLOOR / P) of se, and never more than half of it is asked for

Pair = tuple[int, int]  # indices of two lams


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """The clearest sign that an objective is over-optimised at the cost of one held-out reward, significant or not.

    Attributes:
        objective: what still rises.
        reward: what falls.
        drifts: whether it should have stayed, and left the reference on either side.
        onset: the largest lam of the run at which the fall is still within ``margin``.
        before: the lam it falls from.
        after: the lam it has fallen to, over the pair of lams where that is clearest; of a drift, the first lam at
            which the margin is passed.
        change: of the held-out reward between the two.
        rise: of the objective between the two.
        margin: the smallest fall that matters: a guard's margin, else that of the reward's card, else a small effect.
        p_value: the larger one of the fall and of the rise, corrected for all held-out rewards and pairs of lams.
    """

    objective: str
    reward: str
    drifts: bool
    onset: float
    before: float
    after: float
    change: Interval
    rise: Interval
    margin: float
    p_value: float

    @property
    def raised(self) -> bool:
        """Whether the fall is significant, and large enough to matter."""
        return self.p_value <= LEVEL and (self.drifts or -self.change.mean > self.margin)


@dataclass(frozen=True, kw_only=True)
class _Questions:
    """Questions to one reward, each whether the mean over prompts of a column is above 0.

    Attributes:
        pairs: indices of the two lams that each is about.
        columns: (P, questions), in units of the reward.
        offsetting: (questions,), the smallest share of prompts that could offset the mean if the sample missed them.
    """

    pairs: list[Pair]
    columns: Floats
    offsetting: Floats


def alarms(results: Results, criteria: Criteria, *, seed: int = 0) -> list[Alarm]:
    """An alarm, raised or not, for every held-out reward and objective.

    Args:
        results: scores with lam = 0 among their lams; lams below 0 are left out, as are prompts without all lams.
        criteria: its objectives are raised, all other rewards are held out. Its guards have half of the level
            for themselves, so that many more metrics beside them can't drown them.
        seed: of flips and resamples.

    Returns:
        The most significant first; none where there are fewer than `LEAST_PROMPTS` prompts, or a single lam from 0 on.
    """
    names = [name for name in results.scores if results.info(name).direction != "none"]
    held_out = [name for name in names if name not in criteria.objectives]
    rows, lams = _without_gaps(results, [*held_out, *criteria.objectives])
    if not held_out or len(rows) < LEAST_PROMPTS or len(lams) < 2:
        return []
    results = results.select(rows, lams)
    margins = {name: _margin(results, criteria, name) for name in held_out}
    questions = {name: _falls(results, name, margins[name]) for name in held_out}
    families = [[name for name in held_out if (name in criteria.guard_names) == named] for named in (True, False)]
    falling = _p_values(questions, [family for family in families if family], seed)
    by_objective: list[Alarm] = []
    for objective in criteria.objectives:
        rises = _rises(results, objective)
        rising = dict(zip(rises.pairs, adjusted_p_values(rises.columns, rises.offsetting, seed).tolist(), strict=True))
        by_objective += [
            _alarm(results, objective, name, questions[name], falling[name], rising, margins[name]) for name in held_out
        ]
    return sorted(by_objective, key=lambda alarm: (not alarm.raised, alarm.p_value))


def missable_share(prompts: int, level: float = 0.05) -> float:
    """The largest share of all prompts that a sample misses altogether with a probability of ``level``."""
    return 1 - level ** (1 / prompts)


def adjusted_p_values(columns: Floats, offsetting: Floats | None = None, seed: int = 0) -> Floats:
    """One-sided p-values (K,) of means above 0, corrected for testing all K columns (P, K).

    Args:
        columns: prompts' values.
        offsetting: (K,), the share of prompts that could offset a mean if the sample missed them, for columns in which
            all prompts agree: their p-value is at least the probability of missing that share. `MISSABLE` by default.
        seed: of flips and resamples.
    """
    size = np.sqrt(np.square(columns).mean(axis=0))
    scaled = columns / np.where(size > 0, size, 1)
    scaled = scaled[np.lexsort((*scaled.T, *np.abs(scaled.T)))]  # so that the order of prompts does not matter
    prompts, mean = len(scaled), scaled.mean(axis=0)
    centred = scaled - mean
    variance = np.square(centred).mean(axis=0)
    agree = variance < 1e-12
    t = t_values(scaled)
    flips = _step_down(t, t_values(scaled, sign_flips(prompts, seed=seed)))
    counts = _bootstrap_counts(prompts, seed)
    means = counts @ centred / prompts
    means[:, agree] = 0.0  # only the signs can tell
    spread = counts @ np.square(centred) / prompts - np.square(means)
    error = np.sqrt(np.maximum(spread, min(0.25, _FLOOR / prompts) * variance) / (prompts - 1))
    resampled = np.divide(means, error, out=np.zeros_like(means), where=error > 0)
    p = np.maximum(flips, _step_down(t, resampled))
    missing = (1 - (MISSABLE if offsetting is None else offsetting)) ** prompts
    return np.where(agree & (mean > 0), np.maximum(p, missing), p)


@lru_cache(maxsize=4)
def _bootstrap_counts(prompts: int, seed: int) -> Floats:
    """How often each prompt is in each bootstrap sample, (FLIPS, P)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(prompts, np.full(prompts, 1 / prompts), FLIPS).astype(float)


def _step_down(t: Floats, null: Floats) -> Floats:
    """Step-down p-values (K,) of t (K,): the share of draws ``null`` whose largest remaining t reaches each."""
    order = np.argsort(t)
    largest = np.maximum.accumulate(null[:, order], axis=1)
    reached = np.where(np.isfinite(t), t - 1e-9 * np.abs(np.nan_to_num(t)), t)[order]  # equal but for rounding
    alone = (1 + (largest >= reached).sum(axis=0)) / (1 + len(null))  # what was observed is one of the draws
    p = np.empty_like(alone)
    p[order] = np.maximum.accumulate(alone[::-1])[::-1]
    return p


def _p_values(questions: Mapping[str, _Questions], families: Sequence[Sequence[str]], seed: int) -> dict[str, Floats]:
    """By reward the p-value of each of its questions, corrected for all questions of all families."""
    by_reward: dict[str, Floats] = {}
    for family in families:
        columns = np.hstack([questions[name].columns for name in family])
        offsetting = np.concatenate([questions[name].offsetting for name in family])
        p = np.minimum(adjusted_p_values(columns, offsetting, seed) * len(families), 1)
        ends = np.cumsum([len(questions[name].pairs) for name in family])[:-1]
        by_reward |= dict(zip(family, np.split(p, ends), strict=True))
    return by_reward


def _without_gaps(results: Results, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of the prompts that have all lams in every reward, and of these lams: from 0 on, those of most."""
    present = np.all([np.isfinite(results.scores[name]).any(axis=1) for name in names], axis=0)
    lams = np.array(results.lams) >= 0
    wanted = lams & (present.sum(axis=0) >= 0.5 * present[:, results.zero].sum())
    return np.flatnonzero(present[:, wanted].all(axis=1)).tolist(), np.flatnonzero(wanted).tolist()


def _margin(results: Results, criteria: Criteria, reward: str) -> float:
    """The smallest change that matters, in the units of the reward; any, where all prompts score the same."""
    named = [guard for guard in criteria.guards if guard.reward == reward]
    try:
        return resolve_margin(results, named[0] if named else Guard(reward)).size
    except ResultsError:
        return 0.0


def _falls(results: Results, reward: str, margin: float) -> _Questions:
    """Whether a reward falls between any two lams; one that should stay, whether it is off by more than the margin."""
    if results.info(reward).direction != "steady":
        rises = _rises(results, reward)
        return _Questions(
            pairs=rises.pairs, columns=-rises.columns, offsetting=_offsetting(results, reward, rises.pairs)
        )
    means = _means(results, reward)
    others = range(1, len(results.lams))
    columns = [sign * (means[:, index] - means[:, 0]) - margin for sign in (1, -1) for index in others]
    pairs = [(0, index) for index in others] * 2
    return _Questions(pairs=pairs, columns=np.stack(columns, axis=1), offsetting=np.full(len(pairs), MISSABLE))


def _rises(results: Results, reward: str) -> _Questions:
    means, count = _means(results, reward), len(results.lams)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    columns = np.stack([means[:, b] - means[:, a] for a, b in pairs], axis=1)
    return _Questions(pairs=pairs, columns=columns, offsetting=np.full(len(pairs), MISSABLE))


def _offsetting(results: Results, reward: str, pairs: Sequence[Pair]) -> Floats:
    """Of each fall, the share of prompts that could offset it by rising: discrete scores to the largest observed."""
    scores, level = results.scores[reward], _means(results, reward).mean(axis=0)
    if not is_discrete(scores, 0):
        return np.full(len(pairs), MISSABLE)
    fall = np.array([level[a] - level[b] for a, b in pairs])
    room = np.nanmax(scores) - np.array([level[a] for a, _ in pairs])
    return np.divide(fall, fall + room, out=np.full(len(pairs), MISSABLE), where=(fall > 0) & (fall + room > 0))


def _means(results: Results, reward: str) -> Floats:
    """Each prompt's mean score at lam = 0 plus its mean paired change, (P, L): right where lams lack some seeds."""
    scores = results.scores[reward]
    reference = scores[:, :, [results.zero]]
    return np.nanmean(reference, axis=1) + np.nanmean(scores - reference, axis=1)


def _alarm(
    results: Results,
    objective: str,
    reward: str,
    questions: _Questions,
    falling: Floats,
    rising: Mapping[Pair, float],
    margin: float,
) -> Alarm:
    """The clearest of a reward's falls that matter, by its p-value and that of the objective's rise over the pair."""
    lams, drifts = results.lams, results.info(reward).direction == "steady"
    p = np.maximum(falling, [rising[pair] for pair in questions.pairs])
    sizes = questions.columns.mean(axis=0) - (0 if drifts else margin)
    significant = np.flatnonzero((p <= LEVEL) & (sizes > 0))
    if drifts and len(significant):
        best = int(min(significant, key=lambda index: questions.pairs[index]))
    else:
        best = min(range(len(p)), key=lambda index: (sizes[index] <= 0, p[index], -sizes[index]))
    before, after = questions.pairs[best]
    change, rise = (_change(results, name, before, after) for name in (reward, objective))
    return Alarm(
        objective=objective,
        reward=reward,
        drifts=drifts,
        onset=lams[_last_within(results, reward, before, after, margin, drifts=drifts)],
        before=lams[before],
        after=lams[after],
        change=change,
        rise=rise,
        margin=margin,
        p_value=float(p[best]),
    )


def _change(results: Results, reward: str, before: int, after: int) -> Interval:
    scores = results.scores[reward]
    change = scores[:, :, after] - scores[:, :, before]
    if not is_discrete(scores, 0):
        return mean_interval(change)
    level = float(np.nanmean(scores[:, :, before]))
    return mean_interval(change, lowest=float(np.nanmin(scores)) - level, highest=float(np.nanmax(scores)) - level)


def _last_within(results: Results, reward: str, before: int, after: int, margin: float, *, drifts: bool) -> int:
    """The last lam before ``after`` up to which the mean is within the margin of that at ``before``.

    A level and then a straight fall, joined, are fitted by least squares, so that noise of one lam doesn't decide.
    """
    lams = np.array(results.lams[before : after + 1])
    means = _means(results, reward).mean(axis=0)[before : after + 1]
    if drifts:
        within = np.abs(means - means[0]) <= margin
    else:
        fits = [_hinge(lams, means, start) for start in lams[:-1]]
        _, start, slope = min(fits, key=lambda fit: fit[0])
        within = -slope * np.maximum(lams - start, 0) <= margin
    within[0], within[-1] = True, False
    return before + int(np.flatnonzero(np.logical_and.accumulate(within))[-1])


def _hinge(lams: NDArray[np.float64], means: Floats, start: float) -> tuple[float, float, float]:
    """Squared misfit, start and slope of a level up to ``start`` and a straight line from there."""
    design = np.stack([np.ones_like(lams), np.maximum(lams - start, 0)], axis=1)
    solved, *_ = np.linalg.lstsq(design, means, rcond=None)
    return float(np.square(design @ solved - means).sum()), start, float(solved[1])
