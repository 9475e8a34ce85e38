"""The statistical part of a recommendation: which lam, its gain, the verdict on each lam, the interval of lam.

The largest of several means is biased upwards by selection. So the gain is estimated by leaving out one prompt at a
time: the lam is chosen without it, and the gain is its change at that lam. The gain's limits hold for all lams that
could have been chosen at once (`simultaneous_risk`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from deradiff.analysis.criteria import RISK, Criteria, Prefer
from deradiff.analysis.curves import paired_changes
from deradiff.analysis.guards import Bools, Constraint, failing, make_constraints, shown_to_hold
from deradiff.analysis.limits import Floats, PromptMeans, p_values, prompt_means, stack
from deradiff.analysis.statistics import LEVEL, Interval, intervals, simultaneous_risk
from deradiff.results import Results

Verdict = Literal["shown to hold", "not settled", "fails"]

RISKS = (0.05, 0.2, 0.5)  # reported side by side
BEST_ESTIMATE = 0.5  # the risk at which no gain need be shown: likelier than not is enough


@dataclass(frozen=True)
class Choice:
    """What is chosen at one risk.

    Attributes:
        candidate: index of the best lam, whether its gain is shown or not.
        recommended: index of the candidate where its gain is shown, else of lam = 0.
        shown: (L,), where all constraints are shown to hold.
    """

    candidate: int
    recommended: int
    shown: Bools


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The statistical part of a recommendation; attributes as `Recommendation`'s, lams by index.

    Attributes:
        choice: at the accepted risk.
        choices: by risk.
        constraints: what must hold.
        gains: each prompt's, (P, L).
        gain: at the candidate.
        failing: by lam.
        verdicts: by lam.
        interval: of the right lam.
    """

    choice: Choice
    choices: Mapping[float, Choice]
    constraints: Sequence[Constraint]
    gains: PromptMeans
    gain: Interval | None
    failing: tuple[tuple[str, ...], ...]
    verdicts: tuple[Verdict, ...]
    interval: tuple[float, float]


def decide(results: Results, criteria: Criteria, ceiling: Bools | None = None) -> Decision:
    """Choose a lam, with its gain, verdicts and interval.

    Args:
        results: as `recommend` takes them, checked.
        criteria: the criteria.
        ceiling: (L,), lams that nothing else rules out; all by default.
    """
    zero, count = results.zero, len(results.lams)
    allowed = np.ones(count, bool) if ceiling is None else ceiling
    needed, gains = make_constraints(results, criteria), combined_gains(results, criteria)
    choices = _choices(gains, needed, criteria, allowed, zero)
    choice, fails = choices[criteria.risk], failing(needed, zero, count, min(criteria.risk, RISK))
    possible = np.array([not names for names in fails]) & allowed
    return Decision(
        choice=choice,
        choices=choices,
        constraints=needed,
        gains=gains,
        gain=_gain(gains, choice, zero, criteria.prefer),
        failing=tuple(fails),
        verdicts=tuple(_verdict(*pair) for pair in zip(choice.shown, ~possible, strict=True)),
        interval=_lam_interval(results, gains, choice, possible),
    )


def chosen_index(results: Results, criteria: Criteria) -> int:
    """The index of the lam that `recommend` would take if no alarm were raised."""
    gains, allowed = combined_gains(results, criteria), np.ones(len(results.lams), bool)
    choices = _choices(gains, make_constraints(results, criteria), criteria, allowed, results.zero)
    return choices[criteria.risk].recommended


def candidate_indices(tables: Sequence[Results], criteria: Criteria) -> list[int]:
    """The index of the candidate of each of many tables of equal lams, from 0 up, whether its gain is settled or not.

    All tables are tested outwards from lam = 0 at once, each up to the first lam that isn't shown to hold.
    """
    needed = [make_constraints(table, criteria) for table in tables]
    last = np.full(len(tables), len(tables[0].lams) - 1)
    active = np.arange(len(tables)) if needed[0] else np.array([], int)
    for lam in range(1, len(tables[0].lams)):
        for number in range(len(needed[0])):
            if len(active):
                slack = stack([needed[index][number].slack[[lam]] for index in active])
                stopped = active[p_values(slack, criteria.risk) > criteria.risk]
                last[stopped] = lam - 1
                active = np.setdiff1d(active, stopped)
    chosen: list[int] = []
    for table, end in zip(tables, last, strict=True):
        gains, shown = combined_gains(table, criteria), np.arange(len(table.lams)) <= end
        means = np.nanmean(gains.means, axis=0)[None]
        chosen.append(int(_best(means, _standard_errors(gains), shown, 0, criteria.prefer)[0]))
    return chosen


def _choices(
    gains: PromptMeans, needed: Sequence[Constraint], criteria: Criteria, allowed: Bools, zero: int
) -> dict[float, Choice]:
    """The choice at each risk; with more risk it is no smaller lam."""
    count = len(allowed)
    choices = {
        risk: _choose(gains, shown_to_hold(needed, zero, count, risk) & allowed, zero, criteria.prefer, risk)
        for risk in {*RISKS, criteria.risk}
    }
    for smaller, larger in pairwise(sorted(choices)):
        if abs(choices[larger].recommended - zero) < abs(choices[smaller].recommended - zero):
            # "within one standard error" can reach further down from a newly allowed lam
            choices[larger] = replace(choices[smaller], shown=choices[larger].shown)
    # No gain need be shown for the best estimate, and it is no nearer than what less risk leaves to be settled.
    candidates = [choices[risk].candidate for risk in sorted(choices, reverse=True)]
    estimate = max(candidates, key=lambda index: abs(index - zero))
    choices[BEST_ESTIMATE] = Choice(estimate, estimate, choices[BEST_ESTIMATE].shown)
    return choices


def combined_gains(results: Results, criteria: Criteria) -> PromptMeans:
    """Each prompt's gain (P, L): of one objective in its units, of several as the mean share of the largest change."""
    samples = [paired_changes(results, name) for name in criteria.objectives]
    if len(samples) == 1:
        return samples[0]
    scores = [results.scores[name] for name in criteria.objectives]
    pairs = [table - table[:, :, [results.zero]] for table in scores]
    sizes = [float(np.abs(np.nanmean(pair, axis=(0, 1))).max()) or 1.0 for pair in pairs]
    return prompt_means(np.mean([pair / size for pair, size in zip(pairs, sizes, strict=True)], axis=0))


def _choose(gains: PromptMeans, shown: Bools, zero: int, prefer: Prefer, risk: float) -> Choice:
    """The candidate at one risk, recommended where its gain is shown to be above 0."""
    means = np.nanmean(gains.means, axis=0)
    candidate = int(_best(means[None], _standard_errors(gains), shown, zero, prefer)[0])
    if candidate == zero:
        return Choice(zero, zero, shown)
    each = simultaneous_risk(gains.means[:, _rivals(shown, zero)], risk, two_sided=True)  # as the interval printed
    settled = p_values(gains[[candidate]], each)[0] <= each
    return Choice(candidate, candidate if settled else zero, shown)


def _best(means: Floats, errors: Floats, allowed: Bools, zero: int, prefer: Prefer) -> np.ndarray:
    """For each row of means (N, L) the index of the lam to take, by ``prefer`` among the allowed lams."""
    from_zero = np.abs(np.arange(means.shape[1]) - zero)
    masked = np.where(allowed & np.isfinite(means), means, -np.inf)
    top = masked.max(axis=1, keepdims=True)
    best = np.argmin(np.where(masked == top, from_zero, np.inf), axis=1)
    if prefer == "best":
        return best
    close = masked >= top - errors[best][:, None]
    return np.argmin(np.where(close, from_zero, np.inf), axis=1)


def _standard_errors(gains: PromptMeans) -> Floats:
    return gains.scale / np.sqrt(np.maximum(gains.counts, 1))


def _rivals(shown: Bools, zero: int) -> np.ndarray:
    """Indices of the lams that could have been chosen."""
    rivals = np.flatnonzero(shown)
    return rivals[rivals != zero]


def _gain(gains: PromptMeans, choice: Choice, zero: int, prefer: Prefer) -> Interval | None:
    """The gain at the candidate, with each prompt left out of its own choice, and limits that hold for all rivals."""
    if choice.candidate == zero:
        return None
    present = np.isfinite(gains.means)
    filled, count = np.where(present, gains.means, 0), present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (filled.sum(axis=0) - filled) / (count - present)
    picks = _best(left_out, _standard_errors(gains), choice.shown, zero, prefer)
    mean = float(np.nanmean(gains.means[np.arange(len(picks)), picks]))
    each = simultaneous_risk(gains.means[:, _rivals(choice.shown, zero)], 1 - LEVEL, two_sided=True)
    at_candidate = intervals(gains[[choice.candidate]], 1 - 2 * each)[0]
    return Interval(mean=mean, low=min(at_candidate.low, mean), high=max(at_candidate.high, mean))


def _lam_interval(results: Results, gains: PromptMeans, choice: Choice, possible: Bools) -> tuple[float, float]:
    """The smallest and largest lam that may be the right one: not failing, and not beaten by one shown to hold."""
    shown, candidates = np.flatnonzero(choice.shown), np.flatnonzero(possible | choice.shown)
    pairs = [(j, k) for j in shown for k in candidates if j != k]
    beaten: set[int] = set()
    if pairs:
        better, worse = (np.array(side) for side in zip(*pairs, strict=True))
        differences = prompt_means((gains.means[:, better] - gains.means[:, worse])[:, None])
        each = simultaneous_risk(differences.means, 1 - LEVEL)
        beaten = set(worse[p_values(differences, each) <= each].tolist())
    left = [index for index in candidates if index not in beaten] + [choice.candidate, choice.recommended]
    return results.lams[int(min(left))], results.lams[int(max(left))]


def _verdict(shown: bool, fails: bool) -> Verdict:
    return "shown to hold" if shown else "fails" if fails else "not settled"
