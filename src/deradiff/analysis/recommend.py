"""Which lam to take: the best for the objective among the lams at which every guard is shown to hold.

The largest of several means is biased upwards by selection. So the gain is estimated by leaving out one prompt at a
time: the lam is chosen without it, and the gain is its change at that lam. The gain's limits hold for all lams that
could have been chosen at once (`simultaneous_risk`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from deradiff.analysis.criteria import RISK, Criteria, Guard, Prefer, make_criteria
from deradiff.analysis.curves import (
    Curve,
    check_answerable,
    equivalent_beta,
    paired_changes,
    paired_curve,
)
from deradiff.analysis.grid import suggest_lams
from deradiff.analysis.guards import Bools, Constraint, constraints, failing, shown_to_hold, side_risk
from deradiff.analysis.limits import Floats, PromptMeans, p_values, prompt_means, stack
from deradiff.analysis.overoptimization import Alarm, alarms
from deradiff.analysis.power import prompts_to_show
from deradiff.analysis.statistics import LEVEL, Interval, intervals, simultaneous_risk
from deradiff.errors import ResultsError
from deradiff.results import HasResults, Results, as_results

Verdict = Literal["shown to hold", "not settled", "fails"]

RISKS = (0.05, 0.2, 0.5)  # reported side by side
BEST_ESTIMATE = 0.5  # the risk at which no gain need be shown: likelier than not is enough


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The lam to take and why.

    Attributes:
        lam: the recommended mixing weight: every guard is shown to hold there, and the gain is shown to be above 0.
            0, the reference, where no other lam is.
        candidate: the best lam at which every guard is shown to hold, whether its gain is settled or not.
        gain: of the objective at the candidate (of several, the mean of the gains, each as a share of its objective's
            largest), after choosing: unbiased by selection, with 95 % limits that hold for whichever lam was chosen.
            None where the candidate is lam = 0.
        verdicts: for each lam whether all guards and the KL budget are shown to hold there.
        failing: for each lam, the names of what fails at it or on the way: rewards, ``path KL``.
        interval: the smallest and the largest lam of the run that may be the right one (the best at which all guards
            truly hold, for all prompts like these), at 95 % confidence.
        lams_by_risk: risk -> the lam that would be recommended at it, for 5 %, 20 % and 50 %. That of 50 % is the best
            estimate: the best lam at which all guards are likelier to hold than not, at least ``candidate``.
        settled_by: a lam beyond the recommended one and how many prompts like these would show it (80 % power); None
            where there is none, or the number can't be inferred.
        least_prompts: by constraint the number of prompts below which it can't be shown anywhere above lam = 0.
        cannot_fail: names of guards whose margin is as large as all that can be lost.
        pareto: of several objectives, each lam that no other one shown to hold beats in all; empty for one objective.
        curves: of all rewards, the objectives' and guards' first.
        betas: for each lam the KL strength it stands for, anchor_beta / lam; None for lam <= 0 or an unknown
            anchor_beta.
        alarms: signs that an objective is over-optimised, raised or silent, the surest first.
        suggested_lams: lams to sample next, where the grid is too coarse or ends too early; empty where it isn't.
        skipped_rewards: for each reward that some images have no score of, how many, and what to do.
        constraints: what must hold, as text.
        criteria: the question.
        prompts: how many prompts the run has.
    """

    lam: float
    candidate: float
    gain: Interval | None
    verdicts: tuple[Verdict, ...]
    failing: tuple[tuple[str, ...], ...]
    interval: tuple[float, float]
    lams_by_risk: Mapping[float, float]
    settled_by: tuple[float, int] | None
    least_prompts: Mapping[str, int]
    cannot_fail: tuple[str, ...]
    pareto: tuple[float, ...]
    curves: Mapping[str, Curve]
    betas: tuple[float | None, ...]
    alarms: tuple[Alarm, ...]
    suggested_lams: tuple[float, ...]
    skipped_rewards: tuple[str, ...]
    constraints: tuple[str, ...]
    criteria: Criteria
    prompts: int

    @property
    def lams(self) -> tuple[float, ...]:
        """The lams of the run."""
        return next(iter(self.curves.values())).lams

    @property
    def index(self) -> int:
        """The index of ``lam`` among the lams of the run."""
        return self.lams.index(self.lam)

    @property
    def beta(self) -> float | None:
        """The KL strength that ``lam`` stands for."""
        return self.betas[self.index]

    @property
    def raised_alarms(self) -> tuple[Alarm, ...]:
        """The alarms that are raised."""
        return tuple(alarm for alarm in self.alarms if alarm.raised)

    @property
    def named_lams(self) -> tuple[int, ...]:
        """Indices of the lams that the answer names, ascending."""
        settled = () if self.settled_by is None else (self.settled_by[0],)
        lams = {self.lam, self.candidate, *self.lams_by_risk.values(), *settled, *self.pareto}
        return tuple(sorted(map(self.lams.index, lams)))

    def is_sampled(self, index: int) -> bool:
        """Whether images were sampled at a lam, by its index; where none were, a surrogate filled in its figures."""
        return any(curve.pairs[index] > 0 for curve in self.curves.values())


def recommend(
    source: Results | HasResults,
    objectives: str | Sequence[str],
    guards: Guard | str | Sequence[Guard | str] = (),
    *,
    kl_budget: float | None = None,
    risk: float = RISK,
    prefer: Prefer = "smallest",
) -> Recommendation:
    """The best lam for the objectives at which every guard is shown to hold.

    Args:
        source: scores with lam = 0 among their lams, or a run with such scores.
        objectives: names of rewards to raise. Of several, the Pareto set is listed too, and ``lam`` is that of the
            largest mean gain, each gain as a share of its objective's largest.
        guards: rewards that must hold, each with what it may lose; a bare name for the smallest change that matters.
        kl_budget: the largest mean path KL, in nats.
        risk: the probability accepted that a guard's true loss at the recommended lam exceeds its margin, in (0, 0.5].
        prefer: among lams that hold and are within one standard error of the best, the ``smallest`` or the ``best``.

    Raises:
        ResultsError: criteria that can't be used, a reward that is unknown or scored in part, lam = 0 missing, a
            single lam or prompt, or a KL budget for a run that recorded no path KL.
    """
    return recommend_for(as_results(source), make_criteria(objectives, guards, kl_budget, risk, prefer))


def recommend_for(results: Results, criteria: Criteria) -> Recommendation:
    """`recommend` for criteria that exist already."""
    for name in criteria.guard_names:
        _check_margin_is_read(results, name)
    for name in criteria.rewards:
        check_answerable(results, name)
    names = [*criteria.rewards, *sorted(set(results.scores) - set(criteria.rewards))]
    curves = {name: paired_curve(results, name) for name in names}
    raised_or_silent = tuple(alarms(results, criteria))
    decision = decide(results, criteria, _alarm_ceiling(results, raised_or_silent))
    lams, choice, needed = results.lams, decision.choice, decision.constraints
    return Recommendation(
        lam=lams[choice.recommended],
        candidate=lams[choice.candidate],
        gain=decision.gain,
        verdicts=decision.verdicts,
        failing=decision.failing,
        interval=decision.interval,
        lams_by_risk={risk: lams[at_risk.recommended] for risk, at_risk in sorted(decision.choices.items())},
        settled_by=_settled_by(results, decision, criteria.risk),
        least_prompts=_least_prompts(needed, criteria.risk),
        cannot_fail=tuple(
            name for name in criteria.guard_names if not any(c.can_fail for c in needed if c.name == name)
        ),
        pareto=_pareto(results, criteria, choice.shown),
        curves=curves,
        betas=tuple(equivalent_beta(results, lam) for lam in lams),
        alarms=raised_or_silent,
        suggested_lams=tuple(
            suggest_lams([curves[name] for name in criteria.objectives], choice.shown.tolist(), choice.recommended)
        ),
        skipped_rewards=(
            *map(results.missing_scores_message, results.unscored),
            *results.unscored_prompts_messages(),
        ),
        constraints=tuple(constraint.text for constraint in needed),
        criteria=criteria,
        prompts=len(results.prompts),
    )


def _check_margin_is_read(results: Results, guard: str) -> None:
    """Raise for the name of a guard that ends in what should have been a margin, such as ``hps:banana``."""
    name, _, margin = guard.rpartition(":")
    known = {*results.scores, *results.unscored}
    if name in known and guard not in known:
        raise ResultsError(
            f"can't read the guard {guard!r}: its margin {margin!r} is not a number; "
            f"expected {name}:-0.1, {name}:-5% or {name}:±5%"
        )


def candidate_indices(tables: Sequence[Results], question: Criteria) -> list[int]:
    """The index of the candidate of each of many tables of equal lams, from 0 up, whether its gain is settled or not.

    As many walks outwards at once: a table that has stopped is tested no further.
    """
    made = [constraints(table, question) for table in tables]
    last = np.full(len(tables), len(tables[0].lams) - 1)
    walking = np.arange(len(tables)) if made[0] else np.array([], int)
    for lam in range(1, len(tables[0].lams)):
        for number in range(len(made[0])):
            if len(walking):
                slack = stack([made[index][number].slack[[lam]] for index in walking])
                stopped = walking[p_values(slack, question.risk) > question.risk]
                last[stopped] = lam - 1
                walking = np.setdiff1d(walking, stopped)
    chosen = []
    for table, end in zip(tables, last, strict=True):
        gains, shown = combined_gains(table, question), np.arange(len(table.lams)) <= end
        means = np.nanmean(gains.means, axis=0)[None]
        chosen.append(int(_best(means, _standard_errors(gains), shown, 0, question.prefer)[0]))
    return chosen


@dataclass(frozen=True)
class Choice:
    """What is chosen at one risk.

    Attributes:
        candidate: index of the lam that would be taken, were its gain settled.
        recommended: index of the lam that is taken: the candidate, or lam = 0.
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
        gains: of the prompts, (P, L).
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


def decide(results: Results, question: Criteria, ceiling: Bools | None = None) -> Decision:
    """Choose a lam, with its gain, verdicts and interval.

    Args:
        results: as `recommend` takes them, checked.
        question: the criteria.
        ceiling: (L,), lams that nothing else rules out; all by default.
    """
    zero, count = results.zero, len(results.lams)
    allowed = np.ones(count, bool) if ceiling is None else ceiling
    made, gains = constraints(results, question), combined_gains(results, question)
    choices = _choices(gains, made, question, allowed, zero)
    choice, fails = choices[question.risk], failing(made, zero, count, min(question.risk, RISK))
    possible = np.array([not own for own in fails]) & allowed
    return Decision(
        choice=choice,
        choices=choices,
        constraints=made,
        gains=gains,
        gain=_gain(gains, choice, zero, question.prefer),
        failing=tuple(fails),
        verdicts=tuple(_verdict(*pair) for pair in zip(choice.shown, ~possible, strict=True)),
        interval=_lam_interval(results, gains, choice, possible),
    )


def chosen_index(results: Results, question: Criteria) -> int:
    """The index of the lam that `recommend` takes, were no alarm raised, and nothing else."""
    gains, allowed = combined_gains(results, question), np.ones(len(results.lams), bool)
    choices = _choices(gains, constraints(results, question), question, allowed, results.zero)
    return choices[question.risk].recommended


def _choices(
    gains: PromptMeans, made: Sequence[Constraint], question: Criteria, allowed: Bools, zero: int
) -> dict[float, Choice]:
    """What is chosen at each risk; more risk takes no smaller lam."""
    count = len(allowed)
    choices = {
        risk: _choose(gains, shown_to_hold(made, zero, count, risk) & allowed, zero, question.prefer, risk)
        for risk in {*RISKS, question.risk}
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


def combined_gains(results: Results, question: Criteria) -> PromptMeans:
    """Each prompt's gain (P, L): of one objective in its units, of several the mean of shares of the largest change."""
    samples = [paired_changes(results, name) for name in question.objectives]
    if len(samples) == 1:
        return samples[0]
    scores = [results.scores[name] for name in question.objectives]
    pairs = [table - table[:, :, [results.zero]] for table in scores]
    sizes = [float(np.abs(np.nanmean(own, axis=(0, 1))).max()) or 1.0 for own in pairs]
    return prompt_means(np.mean([own / size for own, size in zip(pairs, sizes, strict=True)], axis=0))


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
    """Of each row of means (N, L) the index of the lam to take: by ``prefer`` among the allowed lams."""
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
    """The gain at the candidate, as if each prompt had been left out of choosing, with limits for all rivals."""
    if choice.candidate == zero:
        return None
    present = np.isfinite(gains.means)
    filled, count = np.where(present, gains.means, 0), present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (filled.sum(axis=0) - filled) / (count - present)
    picks = _best(left_out, _standard_errors(gains), choice.shown, zero, prefer)
    of_picks = gains.means[np.arange(len(picks)), picks]
    mean = float(np.nanmean(of_picks))
    each = simultaneous_risk(gains.means[:, _rivals(choice.shown, zero)], 1 - LEVEL, two_sided=True)
    own = intervals(gains[[choice.candidate]], 1 - 2 * each)[0]
    return Interval(mean=mean, low=min(own.low, mean), high=max(own.high, mean))


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


def _settled_by(results: Results, decision: Decision, risk: float) -> tuple[float, int] | None:
    """The furthest lam, up to the best estimate, whose number of prompts can be told."""
    zero, count = results.zero, len(results.lams)
    estimate, taken = decision.choices[BEST_ESTIMATE].candidate, decision.choice.recommended
    step = 1 if estimate >= zero else -1
    nearest = taken if (taken - zero) * step > 0 else zero  # a lam on the other side is no step on the way
    each = side_risk(zero, count, risk)
    for index in range(estimate, nearest, -step):
        if decision.choice.shown[index] and taken != zero:
            return None  # shown already, and not taken for being no better
        on_the_way = range(zero + step, index + step, step)
        tests = [(own.slack[[lam]], each) for own in decision.constraints for lam in on_the_way]
        rivals = decision.gains.means[:, list(on_the_way)]
        tests.append((decision.gains[[index]], simultaneous_risk(rivals, risk, two_sided=True)))
        needed = prompts_to_show(tests)
        if needed is not None:
            return results.lams[index], needed
    return None


def _alarm_ceiling(results: Results, found: Sequence[Alarm]) -> Bools:
    """The lams that no raised alarm rules out: none beyond the onset of a fall that matters."""
    onsets = [alarm.onset for alarm in found if alarm.raised]
    return np.array(results.lams) <= min(onsets, default=np.inf)


def _can_fail(guard: str, needed: Sequence[Constraint]) -> bool:
    return any(constraint.can_fail for constraint in needed if constraint.name == guard)


def _least_prompts(made: Sequence[Constraint], risk: float) -> dict[str, int]:
    needed = [(own.name, own.least_prompts(risk)) for own in made]
    return {name: max(n for other, n in needed if other == name and n) for name, n in needed if n}


def _verdict(shown: bool, fails: bool) -> Verdict:
    return "shown to hold" if shown else "fails" if fails else "not settled"


def _pareto(results: Results, question: Criteria, shown: Bools) -> tuple[float, ...]:
    """Of several objectives, the lams shown to hold that no other such lam equals in all and beats in one."""
    if len(question.objectives) == 1:
        return ()
    means = np.stack([np.nanmean(paired_changes(results, name).means, axis=0) for name in question.objectives])
    ours, others = means[:, :, None], means[:, None, :]
    beaten = (others >= ours).all(axis=0) & (others > ours).any(axis=0) & shown[None, :]
    return tuple(results.lams[int(index)] for index in np.flatnonzero(shown & ~beaten.any(axis=1)))
