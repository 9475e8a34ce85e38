"""The statistical part of a recommendation: which lam, its gain, the verdict on each lam, the interval of lam."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from deradiff.analysis.criteria import RISK, Criteria, Prefer
from deradiff.analysis.curves import paired_changes
from deradiff.analysis.gains import Gains, PromptGains, best_indices, rival_indices
from deradiff.analysis.guards import Bools, Constraint, failing, make_constraints, shown_to_hold
from deradiff.analysis.limits import PromptMeans, p_values, prompt_means, stack
from deradiff.analysis.statistics import Interval
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
        gains: of the objective, at each lam.
        gain: at the candidate.
        failing: by lam.
        verdicts: by lam.
        interval: of the right lam.
    """

    choice: Choice
    choices: Mapping[float, Choice]
    constraints: Sequence[Constraint]
    gains: Gains
    gain: Interval | None
    failing: tuple[tuple[str, ...], ...]
    verdicts: tuple[Verdict, ...]
    interval: tuple[float, float]


def decide(results: Results, criteria: Criteria, ceiling: Bools | None = None, gains: Gains | None = None) -> Decision:
    """Choose a lam, with its gain, verdicts and interval.

    Args:
        results: as `recommend` takes them, checked.
        criteria: the criteria.
        ceiling: (L,), lams that nothing else rules out; all by default.
        gains: of the objective, where scores don't tell them; by default those of its scores.
    """
    zero, count = results.zero, len(results.lams)
    allowed = np.ones(count, bool) if ceiling is None else ceiling
    needed = make_constraints(results, criteria)
    gains = PromptGains(combined_gains(results, criteria)) if gains is None else gains
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
    gains, allowed = PromptGains(combined_gains(results, criteria)), np.ones(len(results.lams), bool)
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
        gains, shown = PromptGains(combined_gains(table, criteria)), np.arange(len(table.lams)) <= end
        chosen.append(_best(gains, shown, 0, criteria.prefer))
    return chosen


def _choices(
    gains: Gains, needed: Sequence[Constraint], criteria: Criteria, allowed: Bools, zero: int
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


def _choose(gains: Gains, shown: Bools, zero: int, prefer: Prefer, risk: float) -> Choice:
    """The candidate at one risk, recommended where its gain is shown to be above 0."""
    candidate = _best(gains, shown, zero, prefer)
    settled = candidate != zero and gains.is_shown(candidate, rival_indices(shown, zero), risk)
    return Choice(candidate, candidate if settled else zero, shown)


def _best(gains: Gains, allowed: Bools, zero: int, prefer: Prefer) -> int:
    return int(best_indices(gains.means[None], gains.errors, allowed, zero, prefer)[0])


def _gain(gains: Gains, choice: Choice, zero: int, prefer: Prefer) -> Interval | None:
    return None if choice.candidate == zero else gains.estimate(choice.candidate, choice.shown, zero, prefer)


def _lam_interval(results: Results, gains: Gains, choice: Choice, possible: Bools) -> tuple[float, float]:
    """The smallest and largest lam that may be the right one: not failing, and not beaten by one shown to hold."""
    candidates = np.flatnonzero(possible | choice.shown).tolist()
    left = [*gains.possible_best(choice.shown, candidates), choice.candidate, choice.recommended]
    return results.lams[min(left)], results.lams[max(left)]


def _verdict(shown: bool, fails: bool) -> Verdict:
    return "shown to hold" if shown else "fails" if fails else "not settled"
