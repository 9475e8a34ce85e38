"""A recommendation as text: the answer, its reasons, its uncertainty, what would settle it, and warnings."""

from collections.abc import Iterator, Sequence

import numpy as np

from deradiff.analysis.decide import BEST_ESTIMATE, RISKS
from deradiff.analysis.overoptimization import LEAST_PROMPTS, LEVEL, Alarm, missable_share
from deradiff.analysis.recommend import Recommendation
from deradiff.analysis.statistics import Interval
from deradiff.analysis.vote_messages import vote_interval, vote_reasons, vote_warnings, votes_to_settle

FEW_PROMPTS = 5
ENOUGH_PROMPTS = 29  # miss a tenth of all prompts one time in twenty
MOST_PROMPTS = 100_000  # that a number of prompts is advice up to


def headline(answer: Recommendation, at: str | None = None) -> str:
    """The lam and what is shown there, in one sentence."""
    beta = "" if answer.beta is None else f" (beta {answer.beta:.3g})"
    return f"lam{f' at {at}' if at else ''}: {answer.lam:g}{beta}: {_status(answer)}"


def lead(answer: Recommendation) -> str:
    """The headline without the lam, as a sentence that begins with a capital."""
    text = _status(answer)
    return f"{text[0].upper()}{text[1:]}."


def reasons(answer: Recommendation) -> list[str]:
    """Why this lam, a sentence each, with the figures."""
    sentences: list[str] = []
    if answer.votes is not None:
        sentences += vote_reasons(answer.votes, answer.lams.index(answer.candidate))
    if answer.gain is not None:
        sentences.append(f"{_gain_sentence(answer)}")
        sentences += [
            f"There {name} changes by {answer.curves[name].change[answer.lams.index(answer.candidate)]}."
            for name in answer.criteria.guard_names
        ]
        if answer.votes is None:
            sentences += _wins(answer)
    if answer.pareto:
        lams = ", ".join(f"{lam:g}" for lam in answer.pareto)
        sentences.append(f"No lam shown to hold is better than these in every objective: {lams}.")
    return sentences


def by_risk(answer: Recommendation) -> str:
    """The lam at each risk, side by side, and the interval of the right one."""
    names = {RISKS[0]: "safe", BEST_ESTIMATE: "best estimate"}
    parts = [f"{names.get(risk, '')} {lam:g} ({risk:.0%} risk)".strip() for risk, lam in answer.lams_by_risk.items()]
    low, high = answer.interval
    votes = "" if answer.votes is None or not answer.constraints else f" {vote_interval(answer.votes)}"
    where = f"is {low:g}" if low == high else f"lies between {low:g} and {high:g}"
    return f"{', '.join(parts)}. For all prompts like these, the best of these lams {where} (95% confidence).{votes}"


def to_settle(answer: Recommendation) -> str | None:
    """How many prompts or votes would show more; None where nothing is left to settle."""
    votes = None if answer.votes is None else votes_to_settle(answer.votes)
    return " ".join(filter(None, [_prompts_to_settle(answer), votes])) or None


def _prompts_to_settle(answer: Recommendation) -> str | None:
    if answer.settled_by is not None:
        lam, prompts = answer.settled_by
        more = prompts - answer.prompts
        if more <= 0:
            return f"{prompts:,} prompts like these show lam = {lam:g} four times in five: these were unlucky."
        return (
            f"About {more:,} more prompt{'s' * (more > 1)} like these ({prompts:,} in all) would show lam = {lam:g} "
            "(80% power)."
        )
    can_settle = answer.votes is None or answer.constraints  # else more votes can, and prompts can't
    if answer.lams_by_risk[BEST_ESTIMATE] != answer.lam and can_settle:
        wanted = f"{answer.lams_by_risk[BEST_ESTIMATE]:g}"
        return (
            f"These {answer.prompts:,} prompts can't say how many would show lam = {wanted}: "
            "the loss or the gain is too uncertain, or too close to what is allowed."
        )
    return None


def verdict_reason(answer: Recommendation, index: int) -> str:
    """Why a lam has its verdict, as text; empty where every constraint is shown to hold."""
    if answer.verdicts[index] == "shown to hold":
        return ""
    if answer.failing[index]:
        return f"fails: {', '.join(answer.failing[index])}"
    if answer.verdicts[index] == "fails":
        return "beyond the onset of a hacking alarm"
    return "not settled"


def alarm_sentence(alarm: Alarm, prompts: int) -> str:
    """A raised alarm in a sentence, with its assumption."""
    p = f"p {'< 0.001' if alarm.p_value < 0.001 else f'= {alarm.p_value:.2g}'}"
    rise = f"{alarm.objective} rises by {alarm.rise}"
    if alarm.drifts:
        sentence = (
            f"from lam = {alarm.after:g} {alarm.reward} is more than {alarm.margin:.3g} off the reference (it changes "
            f"by {alarm.change}; {p}) while {rise}."
        )
    else:
        sentence = (
            f"from lam = {alarm.before:g} to {alarm.after:g} {rise} while {alarm.reward} changes by {alarm.change} "
            f"({p}); up to lam = {alarm.onset:g} the fall is within {alarm.margin:.3g}."
        )
    return sentence + (f" {_missable(prompts)}" if prompts < ENOUGH_PROMPTS else "")


def no_alarm_message(answer: Recommendation) -> str | None:
    """Where no alarm is raised, how near the closest is; None where one is raised, or where none could be."""
    if not answer.alarms or answer.alarms[0].raised:
        return None
    alarm = answer.alarms[0]
    small = alarm.p_value <= LEVEL
    sentence = (
        f"silent; the closest is {alarm.reward} from lam = {alarm.before:g} to {alarm.after:g} ({alarm.change}, "
        f"{f'where {alarm.margin:.3g} off the reference is allowed, ' if alarm.drifts else ''}p = {alarm.p_value:.2g}"
        f"{f', less than the {alarm.margin:.3g} that matters' if small else ''}) "
        f"while {alarm.objective} changes by {alarm.rise}."
    )
    _, low, high = alarm.change.figures
    if not alarm.drifts and alarm.change.low >= 0:
        return sentence
    room = high if alarm.drifts and alarm.change.mean > 0 else low
    return f"{sentence} That is no proof: these {answer.prompts:,} prompts leave room for a change of {room} there."


def warnings(answer: Recommendation) -> list[str]:
    """What a reader should know before trusting the answer."""
    own = _alarm_warnings(answer) if answer.votes is None else vote_warnings(answer.votes)
    return [*_sample_warnings(answer), *_lam_warnings(answer), *_guard_warnings(answer), *own]


def _status(answer: Recommendation) -> str:
    return _why_not(answer) if answer.lam == 0 else _holds(answer)


def _holds(answer: Recommendation) -> str:
    risk = answer.criteria.risk
    if not answer.constraints:
        how = "likelier than not" if risk == BEST_ESTIMATE else "shown"
        if answer.votes is not None:
            return f"its images are {how} to be preferred to the reference's"
        return f"{_objectives(answer)} is {how} to rise there"
    return f"{' and '.join(answer.constraints)}, shown at {risk:.0%} risk"


def _why_not(answer: Recommendation) -> str:
    others = [index for index, lam in enumerate(answer.lams) if lam != 0]
    any_shown = any(answer.verdicts[index] == "shown to hold" for index in others)
    if any_shown and answer.candidate != 0:
        if answer.votes is not None:
            unsettled = _unsettled(answer.votes.votes, "vote")
            return f"{unsettled} whether lam = {answer.candidate:g} is preferred to the reference"
        gain = f"the gain in {_objectives(answer)} at lam = {answer.candidate:g}"
        return f"{_unsettled(answer.prompts, 'prompt')} {gain}"
    if any_shown:
        if answer.votes is not None:
            return "no lam shown to hold is preferred to the reference"
        return f"no lam shown to hold raises {_objectives(answer)}"
    if all(answer.failing[index] for index in others):
        return f"every other lam fails ({', '.join(sorted({name for names in answer.failing for name in names}))})"
    return f"{_unsettled(answer.prompts, 'prompt')} any other lam"


def _unsettled(count: int, what: str) -> str:
    return f"this {what} doesn't settle" if count == 1 else f"these {count:,} {what}s don't settle"


def _objectives(answer: Recommendation) -> str:
    return " and ".join(answer.criteria.objectives)


def _gain_sentence(answer: Recommendation) -> str:
    where = "there" if answer.candidate == answer.lam else f"at lam = {answer.candidate:g}"
    rivals = "among the lams shown to hold" if answer.constraints else "among all lams"
    how = "the smallest within one standard error of the best" if answer.criteria.prefer == "smallest" else "the best"
    index = answer.lams.index(answer.candidate)
    source = "" if answer.is_sampled(index) else " No image was sampled at this lam: a surrogate gives its figures."
    if len(answer.criteria.objectives) > 1:
        gains = " and ".join(f"{name} by {answer.curves[name].change[index]}" for name in answer.criteria.objectives)
        return (
            f"Gain {where}: {gains}. It is {how} {rivals}, by the mean of the gains as shares of their largest.{source}"
        )
    if answer.votes is not None:
        return f"Gain in utility {where}, in logits: {answer.gain}. It is {how} {rivals}."
    return (
        f"Gain in {_objectives(answer)} {where}, corrected for choosing: {answer.gain}. It is {how} {rivals}.{source}"
    )


def _wins(answer: Recommendation) -> Iterator[str]:
    index, curve = answer.lams.index(answer.candidate), answer.curves[answer.criteria.objectives[0]]
    if np.isnan(curve.wins[index].mean):  # a lam that a surrogate chose and nobody sampled
        return
    sentence = f"Its images score above the reference's in {share_text(curve.wins[index])} of pairs"
    if curve.wins_anchor is not None and answer.candidate != 1:
        sentence += f", and above the anchor's in {share_text(curve.wins_anchor[index])}"
    yield f"{sentence}."
    if curve.wins[index].low > 0.5 and curve.change[index].low <= 0:
        yield "A win counts however small it is: the mean change is not shown to be above 0."


def share_text(share: Interval) -> str:
    """A share and its limits in per cent."""
    return f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"


def _missable(prompts: int) -> str:
    missed = f"{missable_share(prompts):.0%}"
    return f"It assumes no unseen kind of prompt: {prompts} prompts can miss a group of up to {missed}."


def few_prompts_message(reward: str, prompts: int, least: int, risk: float) -> str:
    """That a guard can't be shown to hold with so few prompts.

    Args:
        reward: that it guards.
        prompts: how many there are, fewer than ``least``.
        least: how many it takes, however clean the data.
        risk: the probability of error accepted.
    """
    if least > MOST_PROMPTS:
        return (
            f"{reward} can't be shown to hold at any lam above 0 by any practical number of prompts: its margin is "
            "too small. Widen the margin."
        )
    return (
        f"{reward} can't be shown to hold at any lam above 0 with {prompts:,} prompts, however clean: it takes "
        f"{least:,} or more at {risk:.0%} risk. Give more prompts or a wider margin."
    )


def _sample_warnings(answer: Recommendation) -> Iterator[str]:
    if answer.prompts < FEW_PROMPTS:
        yield f"Only {answer.prompts} prompts: the intervals are wide, and other prompts may behave differently."
    for name, least in answer.least_prompts.items():
        if answer.prompts < least:
            yield few_prompts_message(name, answer.prompts, least, answer.criteria.risk)
    for text in answer.skipped_rewards:
        yield f"Left out: {text}"


def _lam_warnings(answer: Recommendation) -> Iterator[str]:
    lam, suggested = answer.lam, _listed([f"{lam:g}" for lam in answer.suggested_lams])
    advice = f"; sweep {suggested} too" if suggested else ""
    if answer.lams[-1] <= 0:
        yield f"No lam above 0 was swept, which is where alignment is{advice}."
    elif answer.index == len(answer.lams) - 1:
        yield f"lam = {lam:g} is the largest lam swept: a better one may lie above it{advice}."
    elif answer.suggested_lams:
        yield f"The grid is coarse around lam = {lam:g}: {_listed(list(_open_sides(answer)))}{advice}."
    if lam > 1:
        yield (
            f"lam = {lam:g} extrapolates beyond the anchor, which nothing bounds or corrects: an anchor of smaller "
            "beta at a lam below 1, with particles, is the surer way there."
        )
    if lam < 0:
        yield f"lam = {lam:g} moves away from the anchor, which is the opposite of aligning to it."


def _open_sides(answer: Recommendation) -> Iterator[str]:
    """Of each neighbour with a suggested lam before it, why what lies between matters."""
    lams = answer.lams
    for side in (answer.index - 1, answer.index + 1):
        if side < 0 or not any(sorted((lams[side], lam, answer.lam))[1] == lam for lam in answer.suggested_lams):
            continue
        if answer.verdicts[side] != "shown to hold":
            yield f"lam = {lams[side]:g} isn't shown to hold ({verdict_reason(answer, side)})"
        else:
            yield f"lam = {lams[side]:g} differs from it by more than noise"


def _guard_warnings(answer: Recommendation) -> Iterator[str]:
    guards, objectives = answer.criteria.guard_names, answer.criteria.objectives
    for name in answer.cannot_fail:
        yield f"The guard {name} can't fail: its margin is all that {name} can lose, or more. Give a smaller one."
    guards = [name for name in guards if name not in answer.cannot_fail]
    if guards and all(verdict == "shown to hold" for verdict in answer.verdicts):
        one = len(guards) == 1
        yield (
            f"{_listed(guards)} {'holds' if one else 'hold'} at every lam swept: this run does not show where "
            f"{'it' if one else 'they'} would fail."
        )
    if not answer.constraints and len(objectives) == 1:
        what = objectives[0] if answer.votes is None else f"lam = {answer.lam:g}"
        yield f"No guard: nothing shows what {what} may cost; name what must hold with --guard."
    for name in objectives:
        flat = [change.mean == 0 and change.low <= 0 <= change.high for change in answer.curves[name].change]
        if all(flat):
            yield f"{name} is the same at every lam: these scores can't choose a lam."


def _alarm_warnings(answer: Recommendation) -> Iterator[str]:
    objectives = answer.criteria.objectives
    if not set(answer.curves) - set(objectives):
        verb = "is" if len(objectives) == 1 else "are"
        yield f"Nothing else is scored: nothing here would show that {_objectives(answer)} {verb} hacked."
    elif answer.prompts < LEAST_PROMPTS:
        yield f"The hacking alarm needs {LEAST_PROMPTS} prompts or more; there are {answer.prompts}."
    elif not answer.alarms:
        yield "The hacking alarm needs a lam above 0 and a held-out reward that should rise, or stay as it is."


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
