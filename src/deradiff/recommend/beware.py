"""What to beware of in a recommendation, in words: alarms, raised or silent, and warnings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deradiff.recommend.alarm import LEAST_PROMPTS, Alarm
from deradiff.recommend.falls import TOLERANCE

if TYPE_CHECKING:
    from deradiff.recommend.recommendation import Recommendation

FEW_PROMPTS = 5


def hacking(alarm: Alarm) -> str:
    """An alarm that is raised, in a sentence."""
    sure = f"p {'< 0.001' if alarm.p_value < 0.001 else f'= {alarm.p_value:.2g}'}"
    rises = f"{alarm.objective} rises by {alarm.rise}"
    if alarm.drifts:
        return (
            f"from lam = {alarm.after:g} {alarm.reward} is more than {TOLERANCE:.0%} off the reference (it changes by "
            f"{alarm.change}; {sure}) while {rises}."
        )
    return (
        f"from lam = {alarm.before:g} to {alarm.after:g} {rises} while {alarm.reward} changes by {alarm.change} "
        f"({sure}); the fall begins at about lam = {alarm.onset:g}."
    )


def silence(alarm: Alarm, prompts: int) -> str:
    """How near the nearest alarm is that isn't raised, and what these prompts can't rule out."""
    said = (
        f"silent; the closest is {alarm.reward} from lam = {alarm.before:g} to {alarm.after:g} ({alarm.change}, "
        f"{f'where {TOLERANCE:.0%} off the reference is allowed, ' if alarm.drifts else ''}p = {alarm.p_value:.2g}) "
        f"while {alarm.objective} changes by {alarm.rise}."
    )
    _, low, high = alarm.change.figures
    if not alarm.drifts and alarm.change.low >= 0:
        return said
    room = high if alarm.drifts and alarm.change.mean > 0 else low
    return f"{said} That is no proof: these {prompts} prompts leave room for a change of {room} there."


def warnings(choice: "Recommendation") -> Iterator[str]:
    """What a reader should know before trusting the choice."""
    lam, place, prompts = choice.lam, choice.place, choice.prompts
    objectives, guards = choice.question.objectives, choice.question.held
    if prompts < FEW_PROMPTS:
        yield f"Only {prompts} prompts: the intervals are wide, and other prompts may behave differently."
    wanted = ", ".join(f"{own:g}" for own in choice.next_lams)
    too = f", so sweep {wanted} too" if wanted else ""
    if place == len(choice.allowed) - 1:
        yield f"lam = {lam:g} is the largest lam swept: a better one may lie above it{too}."
    elif place == 0 and lam != 0:
        yield f"lam = {lam:g} is the smallest lam swept: a better one may lie below it{too}."
    elif choice.next_lams:
        yield f"The grid is coarse around lam = {lam:g}: neighbours differ by more than noise{too}."
    if lam > 1:
        yield (
            f"lam = {lam:g} extrapolates beyond the anchor, which nothing bounds or corrects: an anchor of smaller "
            "beta at a lam below 1, with particles, is the surer way there."
        )
    if lam < 0:
        yield f"lam = {lam:g} moves away from the anchor, which is the opposite of aligning to it."
    for name in objectives:
        if lam != 0 and choice.curves[name].change[place].low <= 0:
            yield f"The gain in {name} is not significant: sweep more prompts."
    for name in guards:
        if not any(name in failing for failing in choice.failing):
            yield f"{name} never fails significantly: this sweep does not show where it would turn."
    if not guards and len(objectives) == 1:
        yield f"No guard: nothing that {objectives[0]} may cost is held; name what must hold with --guard."
    if not set(choice.curves) - set(objectives):
        yield f"Nothing else is scored: nothing here would show that {' and '.join(objectives)} are hacked."
    elif prompts < LEAST_PROMPTS:
        yield f"The hacking alarm needs {LEAST_PROMPTS} prompts or more; there are {prompts}."
    elif not choice.alarms:
        yield "The hacking alarm needs a lam above 0 and a held-out reward that should rise, or stay as it is."
    for lack in choice.left_out:
        yield f"Left out: {lack}"
    yield from _beyond(choice)


def _beyond(choice: "Recommendation") -> Iterator[str]:
    """A lam that would do better but lies beyond a failing one."""
    objective = choice.curves[choice.question.objectives[0]]
    for lam, change, failing, allowed in zip(
        objective.lams, objective.change, choice.failing, choice.allowed, strict=True
    ):
        if not failing and not allowed and change.mean > objective.change[choice.place].mean:
            yield f"At lam = {lam:g} all guards hold again, but one surely fails on the way there, so it isn't taken."
            return
