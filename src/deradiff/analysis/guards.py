"""At which lams the guards are shown to hold, and at which they fail.

A guard holds at a lam where its mean change is at least -margin. That must be *shown* (non-inferiority): lams are
tested outwards from lam = 0, each by a one-sided test at the accepted risk that the change is below -margin, and the
first lam that isn't shown ends the sequence. Testing in a fixed sequence needs no correction (Maurer et al. 1995): the
first lam that truly fails is passed with a probability of at most the risk, and nothing beyond it is reached otherwise.
Nor do several guards: a lam that fails must pass the test of the guard that it fails by. Where lams lie on both sides
of 0, each side has half the risk.

A lam *fails* where a loss beyond the margin is itself shown: tested from the far end inwards, or, for a failure between
lams that hold, corrected for all lams (Bonferroni). Beyond a failing lam none is recommended, so those fail too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray

from deradiff.analysis.criteria import Criteria, Guard, Margin, resolve_margin
from deradiff.analysis.curves import paired_changes, reference_range, score_bounds
from deradiff.analysis.limits import Floats, PromptMeans, lower_limits, p_values, prompt_means
from deradiff.errors import ResultsError
from deradiff.results import Results

BUDGET = "path KL"
_SMALLEST_SHARE = 1e-15  # of which the number of prompts is still a number
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """Something that must hold: one side of a guard, or the KL budget.

    Attributes:
        name: the reward, or `BUDGET`.
        text: what must hold, such as "hps loses at most 1%".
        slack: prompts' values (P, L), with a mean of 0 or more where it holds.
        margin: the slack at lam = 0.
        worst: the smallest slack that a prompt could have; None where nothing bounds it.
        can_fail: whether some scores would break it; False where the margin is all that can be lost, or more.
    """

    name: str
    text: str
    slack: PromptMeans
    margin: float
    worst: float | None = None
    can_fail: bool = True

    def least_prompts(self, risk: float) -> int | None:
        """Prompts below which nothing above lam = 0 can be shown, however clean the data; None where none is needed.

        A share m = margin / (margin + worst loss) of prompts that lose all they can is what the margin allows, and P
        prompts miss it with a probability of (1 - m)^P.
        """
        if self.worst is None or self.worst >= 0:
            return None
        return least_prompts(self.margin / (self.margin - self.worst), risk)


def least_prompts(share: float, risk: float) -> int:
    """Prompts that miss a group of this share, above 0, with a probability of at most ``risk``; 0 of a share >= 1."""
    return 0 if share >= 1 else ceil(log(risk) / log1p(-max(share, _SMALLEST_SHARE)) - 1e-9)


def make_constraints(results: Results, criteria: Criteria) -> list[Constraint]:
    """All that must hold.

    Raises:
        ResultsError: a KL budget for a run that recorded no path KL, or a guard without a usable margin.
    """
    sides = [side for guard in criteria.guards for side in _sides(results, guard)]
    if criteria.kl_budget is None:
        return sides
    if results.path_kl is None:
        raise ResultsError("a KL budget needs path KL, which this run didn't record; sweep with diagnostics")
    budget = criteria.kl_budget
    kl = prompt_means(results.path_kl, lowest=0.0)
    # where all prompts move alike, another may move twice as far
    twice = np.where(kl.tied, budget - 2 * np.nan_to_num(kl.means).max(axis=0), np.nan)
    slack = prompt_means(budget - results.path_kl, lowest=twice, highest=budget)
    return [*sides, Constraint(name=BUDGET, text=f"{BUDGET} is at most {budget:g} nats", slack=slack, margin=budget)]


def _sides(results: Results, guard: Guard) -> list[Constraint]:
    margin = resolve_margin(results, guard)
    return [_constraint(results, guard, margin, sign) for sign in ((1, -1) if margin.both else (1,))]


def _constraint(results: Results, guard: Guard, margin: Margin, sign: int) -> Constraint:
    """The slack, sign x change + margin; a share is of each pair's reference, which varies less."""
    scores = results.scores[guard.reward]
    reference = scores[:, :, [results.zero]]
    change = paired_changes(results, guard.reward, guard.floor)
    worst, best = reference_range(results, guard.reward)
    direction = float(np.sign(np.nanmean(reference)))

    def room(level: Floats | float) -> Floats | float:
        return margin.size if margin.share is None else margin.share * direction * level

    if sign < 0:
        change, worst, best = -change, best, worst
    slack = prompt_means(
        sign * (scores - reference) + room(reference), change.lowest + room(best), change.highest + room(worst)
    )
    bound = score_bounds(results, guard.reward, guard.floor)[0 if sign > 0 else 1]
    least = float(sign * (bound - best) + room(best)) if np.isfinite(bound) else None
    all_of_it = sign > 0 and (margin.share or 0) >= 1 and float(np.nanmin(scores)) >= 0
    return Constraint(
        name=guard.reward,
        text=f"{guard.reward} {'loses' if sign > 0 else 'gains'} at most {margin}",
        slack=slack,
        margin=margin.size,
        worst=least,
        can_fail=not (all_of_it or (least is not None and least >= 0)),
    )


def shown_to_hold(constraints: Sequence[Constraint], zero: int, lams: int, risk: float) -> Bools:
    """At which of ``lams`` lams every constraint is shown to hold, on the way there too (L,); lam = 0 always."""
    holds, each = np.ones(lams, bool), side_risk(zero, lams, risk)
    for constraint in constraints:
        holds &= p_values(constraint.slack, each) <= each
    return reached(holds, zero)


def reached(holds: Bools, zero: int) -> Bools:
    """Which lams (L,) are reached from lam = 0 through lams that hold."""
    holds = holds.copy()
    holds[zero] = True
    above = np.logical_and.accumulate(holds[zero:])
    below = np.logical_and.accumulate(holds[zero::-1])[::-1]
    return np.concatenate([below[:-1], above])


def failing(constraints: Sequence[Constraint], zero: int, lams: int, risk: float) -> list[tuple[str, ...]]:
    """For each lam the names of what fails there or on the way; any is wrong with a probability of at most ``risk``."""
    names: list[list[str]] = [[] for _ in range(lams)]
    for constraint in constraints:
        each = side_risk(zero, lams, risk) / len(constraints)
        p = p_values(-constraint.slack, each / lams)
        fails = p <= each / lams
        p = p_values(-constraint.slack, each) <= each
        p[zero] = fails[zero] = False
        fails[zero + 1 :] |= np.logical_and.accumulate(p[:zero:-1])[::-1]
        fails[:zero] |= np.logical_and.accumulate(p[:zero])
        beyond = np.logical_or.accumulate(fails[zero:])
        before = np.logical_or.accumulate(fails[zero::-1])[::-1]
        for index in np.flatnonzero(np.concatenate([before[:-1], beyond])):
            if constraint.name not in names[index]:
                names[index].append(constraint.name)
    return [tuple(failed) for failed in names]


def lower_slack(constraints: Sequence[Constraint], zero: int, lams: int, risk: float) -> dict[str, Floats]:
    """By name the lower confidence limit of the slack (L,), the smaller of both sides: 0 or more where it is shown."""
    each = side_risk(zero, lams, risk)
    limits: dict[str, Floats] = {}
    for constraint in constraints:
        low = lower_limits(constraint.slack, each)
        low[zero] = constraint.margin
        limits[constraint.name] = np.minimum(limits.get(constraint.name, low), low)
    return limits


def side_risk(zero: int, lams: int, risk: float) -> float:
    """The risk of each side of lam = 0: half of it where there are lams on both."""
    return risk / 2 if 0 < zero < lams - 1 else risk
