"""`recommend`: the best lam for the objective among those at which every guard is shown to hold, and its reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deradiff.analysis.criteria import RISK, Criteria, Guard, Prefer, make_criteria
from deradiff.analysis.curves import Curve, check_answerable, equivalent_beta, paired_changes, paired_curve
from deradiff.analysis.decide import BEST_ESTIMATE, Decision, Verdict, decide
from deradiff.analysis.grid import suggest_lams
from deradiff.analysis.guards import Bools, Constraint, side_risk
from deradiff.analysis.overoptimization import Alarm, alarms
from deradiff.analysis.power import prompts_to_show
from deradiff.analysis.statistics import Interval
from deradiff.analysis.vote_gains import VoteGains, vote_curve
from deradiff.analysis.votes import VoteFit, fit_votes
from deradiff.errors import ResultsError
from deradiff.results import HasResults, Results, as_results
from deradiff.votes import VOTES


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The lam to take and why.

    Attributes:
        lam: the recommended mixing weight: every guard is shown to hold there, and the gain is shown to be above 0.
            0, the reference, where no other lam is.
        candidate: the best lam at which every guard is shown to hold, whether its gain is settled or not.
        gain: of the objective at the candidate (of several, the mean of the gains, each as a share of its objective's
            largest), after choosing: unbiased by selection, with 95% limits that hold for whichever lam was chosen.
            None where the candidate is lam = 0. Of votes, in logits, with credible limits.
        verdicts: for each lam whether all guards and the KL budget are shown to hold there.
        failing: for each lam, the names of what fails at it or on the way: rewards, ``path KL``.
        interval: the smallest and the largest lam of the run that may be the right one (the best at which all guards
            truly hold, for all prompts like these), at 95% confidence.
        lams_by_risk: risk -> the lam that would be recommended at it, for 5%, 20% and 50%. That of 50% is the best
            estimate: the best lam at which all guards are likelier to hold than not, at least ``candidate``.
        settled_by: a lam beyond the recommended one and how many prompts like these would show it (80% power); None
            where there is none, or the number can't be inferred.
        least_prompts: by constraint the number of prompts below which it can't be shown anywhere above lam = 0.
        cannot_fail: names of guards whose margin is as large as all that can be lost.
        pareto: of several objectives, each lam that no other one shown to hold beats in all; empty for one objective.
        curves: of all rewards, the objectives' and guards' first.
        betas: for each lam the KL strength it stands for, anchor_beta / lam; None for lam <= 0 or an unknown
            anchor_beta.
        alarms: signs that an objective is over-optimised, raised or not, the most significant first.
        suggested_lams: lams to sample next, where the grid is too coarse or ends too early; empty where it isn't.
        skipped_rewards: for each reward that some images have no score of, how many, and what to do.
        constraints: what must hold, as text.
        criteria: the question.
        prompts: how many prompts the run has.
        votes: what people's votes say, where they are the objective; else None.
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
    votes: VoteFit | None = None

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
        return self.votes is not None or any(curve.pairs[index] > 0 for curve in self.curves.values())


def recommend(
    source: Results | HasResults,
    objectives: str | Sequence[str],
    guards: Guard | str | Sequence[Guard | str] = (),
    *,
    kl_budget: float | None = None,
    risk: float = RISK,
    prefer: Prefer | None = None,
) -> Recommendation:
    """The best lam for the objectives at which every guard is shown to hold.

    Args:
        source: scores with lam = 0 among their lams, or a run with such scores.
        objectives: names of rewards to raise. Of several, the Pareto set is listed too, and ``lam`` is that of the
            largest mean gain, each gain as a share of its objective's largest. Or ``votes``, for what people prefer.
        guards: rewards that must hold, each with what it may lose; a bare name for the smallest change that matters.
        kl_budget: the largest mean path KL, in nats.
        risk: the probability accepted that a guard's true loss at the recommended lam exceeds its margin, in (0, 0.5].
        prefer: among lams that hold and are within one standard error of the best, the ``smallest`` or the ``best``; by
            default the smallest, and the best of votes.

    Raises:
        ResultsError: criteria that can't be used, a reward that is unknown or scored in part, no votes where these are
            the objective, lam = 0 missing, a single lam or prompt, or a KL budget for a run that recorded no path KL.
    """
    return recommend_for(as_results(source), make_criteria(objectives, guards, kl_budget, risk, prefer))


def recommend_for(results: Results, criteria: Criteria) -> Recommendation:
    """`recommend` for criteria that exist already."""
    for name in criteria.guard_names:
        _check_margin_is_read(results, name)
    for name in criteria.rewards:
        results.scored(name)  # raises for one that isn't there
    check_answerable(results)
    votes = _vote_gains(results) if criteria.by_votes else None
    names = [*criteria.rewards, *sorted(set(results.scores) - set(criteria.rewards))]
    curves = {} if votes is None else {VOTES: vote_curve(votes, results.votes)}
    curves |= {name: paired_curve(results, name) for name in names}
    all_alarms = () if criteria.by_votes else tuple(alarms(results, criteria))
    decision = decide(results, criteria, _alarm_ceiling(results, all_alarms), votes)
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
        alarms=all_alarms,
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
        votes=None if votes is None else votes.fit,
    )


def _vote_gains(results: Results) -> VoteGains:
    if not results.votes:
        where = "the run" if results.folder is None else str(results.folder)
        raise ResultsError(f"{where} has no votes yet: let people compare its images first, or name a reward to raise")
    return VoteGains(fit_votes(results.votes, results.lams), results.zero)


def _check_margin_is_read(results: Results, guard: str) -> None:
    """Raise for the name of a guard that ends in what should have been a margin, such as ``hps:banana``."""
    name, _, margin = guard.rpartition(":")
    known = {*results.scores, *results.unscored}
    if name in known and guard not in known:
        raise ResultsError(
            f"can't read the guard {guard!r}: its margin {margin!r} is not a number; "
            f"expected {name}:-0.1, {name}:-5% or {name}:±5%"
        )


def _settled_by(results: Results, decision: Decision, risk: float) -> tuple[float, int] | None:
    """The furthest lam, up to the best estimate, whose number of prompts can be inferred."""
    zero, count = results.zero, len(results.lams)
    estimate, recommended = decision.choices[BEST_ESTIMATE].candidate, decision.choice.recommended
    step = 1 if estimate >= zero else -1
    on_this_side = (recommended - zero) * step > 0
    nearest = recommended if on_this_side else zero
    each = side_risk(zero, count, risk)
    for index in range(estimate, nearest, -step):
        if decision.choice.shown[index] and recommended != zero:
            return None  # shown already, but no better
        on_the_way = range(zero + step, index + step, step)
        tests = [(constraint.slack[[lam]], each) for constraint in decision.constraints for lam in on_the_way]
        of_gain = decision.gains.prompt_tests(index, list(on_the_way), risk)
        tests += of_gain or []
        needed = None if of_gain is None or not tests else prompts_to_show(tests)
        if needed is not None:
            return results.lams[index], needed
    return None


def _alarm_ceiling(results: Results, all_alarms: Sequence[Alarm]) -> Bools:
    """The lams that no raised alarm rules out: none beyond the onset of a fall that matters."""
    onsets = [alarm.onset for alarm in all_alarms if alarm.raised]
    return np.array(results.lams) <= min(onsets, default=np.inf)


def _least_prompts(needed: Sequence[Constraint], risk: float) -> dict[str, int]:
    counts = [(constraint.name, constraint.least_prompts(risk)) for constraint in needed]
    return {name: max(n for other, n in counts if other == name and n) for name, n in counts if n}


def _pareto(results: Results, criteria: Criteria, shown: Bools) -> tuple[float, ...]:
    """Of several objectives, the lams shown to hold that no other such lam equals in all and beats in one."""
    if len(criteria.objectives) == 1:
        return ()
    means = np.stack([np.nanmean(paired_changes(results, name).means, axis=0) for name in criteria.objectives])
    ours, others = means[:, :, None], means[:, None, :]
    beaten = (others >= ours).all(axis=0) & (others > ours).any(axis=0) & shown[None, :]
    return tuple(results.lams[int(index)] for index in np.flatnonzero(shown & ~beaten.any(axis=1)))
