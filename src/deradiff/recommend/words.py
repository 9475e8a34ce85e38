"""A recommendation in words: why, how sure, and what would change it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deradiff.recommend.hold import BUDGET
from deradiff.recommend.intervals import Interval

if TYPE_CHECKING:
    from deradiff.recommend.recommendation import Recommendation


def reason(choice: "Recommendation") -> Iterator[str]:
    """Why this lam, in a few sentences with the figures."""
    place, objectives = choice.place, choice.question.objectives
    guards = choice.question.held
    among = "among all lams swept"
    if guards or choice.question.kl_budget is not None:
        among = (
            f"among the lams at which {_holding(choice)} (paired t tests over {choice.prompts} prompts, one-sided 5 %)"
        )
    if choice.lam == 0:
        yield f"No lam raises {' and '.join(objectives)} {among}: stay with the reference, lam = 0."
    else:
        gains = " and ".join(f"{name} by {choice.curves[name].change[place]}" for name in objectives)
        how = (
            "raises"
            if len(objectives) == 1
            else "does best by the mean of the gains, each as a share of its largest change:"
        )
        most = (
            f"{objectives[0]} most, by {choice.curves[objectives[0]].change[place]}" if len(objectives) == 1 else gains
        )
        yield f"lam = {choice.lam:g} {how} {most}, {among}."
        yield from _wins(choice, place)
        for name in guards:
            yield f"There {name} changes by {choice.curves[name].change[place]}."
    if choice.pareto:
        lams = ", ".join(f"{lam:g} ({share:.0%})" for lam, share in choice.pareto)
        yield f"No allowed lam beats these in every objective (share of resamples): {lams}."
    yield from _hacked(choice, place)


def _wins(choice: "Recommendation", place: int) -> Iterator[str]:
    curve = choice.curves[choice.question.objectives[0]]
    wins = curve.wins[place]
    if wins is None:
        return
    won = f"Its images score above the reference's in {_share(wins)} of pairs"
    if curve.wins_anchor is not None and choice.lam != 1:
        won += f", and above the anchor's in {_share(curve.wins_anchor[place])}"
    yield f"{won}."


def _share(share: Interval) -> str:
    return f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"


def failure(choice: "Recommendation", names: tuple[str, ...]) -> str:
    """What fails, in words."""
    told = [f"{guard.reward} is {guard.words}" for guard in choice.question.guards if guard.reward in names]
    if BUDGET in names:
        told.append(f"{BUDGET} is above {choice.question.kl_budget:g} nats")
    return ", ".join(told)


def _holding(choice: "Recommendation") -> str:
    parts = [f"{guard.reward} is not {guard.words}" for guard in choice.question.guards]
    if choice.question.kl_budget is not None:
        parts.append(f"{BUDGET} is within {choice.question.kl_budget:g} nats")
    return ", ".join(parts)


def _hacked(choice: "Recommendation", place: int) -> Iterator[str]:
    for name in choice.question.objectives:
        changes = choice.curves[name].change
        for number, (change, failing) in enumerate(zip(changes, choice.failing, strict=True)):
            guards = tuple(own for own in failing if own != BUDGET)
            if guards and change.low > 0 and change.mean > changes[place].mean:
                lam = choice.curves[name].lams[number]
                fall = f"{name} is higher still while {failure(choice, guards[:1])}"
                yield f"From lam = {lam:g}, {fall}: this is reward hacking."
                break


def certainty(choice: "Recommendation") -> str:
    """How sure, the interval, the runner-up, and what would change its mind."""
    (low, high), prompts = choice.interval, choice.prompts
    said = f"{choice.sure:.0%} of resamples of the prompts choose it, 95 % choose lam between {low:g} and {high:g}"
    if choice.runner_up is None:
        return f"{said}: other prompts like these would not change it."
    said += f"; the runner-up is lam = {choice.runner_up:g}."
    if choice.prompts_needed is None:
        return f"{said} These prompts can't tell the two apart: take the smaller, or sweep many more prompts."
    if choice.prompts_needed <= prompts:
        return f"{said} The {prompts} prompts suffice to tell the two apart."
    return f"{said} About {choice.prompts_needed} prompts like these {prompts} would tell the two apart."
