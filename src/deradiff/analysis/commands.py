"""What would settle an answer, as commands that can be pasted."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from deradiff.analysis.criteria import Guard
from deradiff.analysis.recommend import Recommendation
from deradiff.votes import VOTES


def more_lams(answer: Recommendation, folder: Path) -> str | None:
    """The sweep of the suggested lams; None where the grid is fine enough.

    Args:
        answer: of `deradiff.recommend`.
        folder: of the run.
    """
    if not answer.suggested_lams:
        return None
    lams = ",".join(f"{lam:g}" for lam in answer.suggested_lams)
    return f"{_sweep(folder)} --lams {lams} {_question(answer)}"


def more_prompts(answer: Recommendation, folder: Path) -> tuple[int, str] | None:
    """How many more prompts would settle a better lam, and the sweep of them; None where no number is known.

    Args:
        answer: of `deradiff.recommend`.
        folder: of the run.
    """
    if answer.settled_by is None or answer.settled_by[1] <= answer.prompts:
        return None
    count = answer.settled_by[1] - answer.prompts
    return count, f"{_sweep(folder)} --prompts more.txt {_question(answer)}"


def settling_commands(answer: Recommendation, folder: Path) -> Iterator[tuple[str, str]]:
    """The purpose of each command, and the command.

    Args:
        answer: of `deradiff.recommend`.
        folder: of the run.
    """
    if command := more_lams(answer, folder):
        yield "More lams", command
    if prompts := more_prompts(answer, folder):
        yield more_prompts_title(prompts[0]), prompts[1]


def more_prompts_title(count: int) -> str:
    """What the command of `more_prompts` is for."""
    return f"{count:,} more prompt{'s' * (count > 1)}, one a line of more.txt"


def format_guard(guard: Guard) -> str:
    """A guard as the command line spells it."""
    if guard.margin is None:
        return guard.reward
    share = f"{100 * guard.margin:.12g}%" if guard.relative else f"{guard.margin:.12g}"
    return f"{guard.reward}:{'±' if guard.both else '-'}{share}"


def _sweep(folder: Path) -> str:
    return f"deradiff sweep --out {shlex.quote(str(folder))}"


def _question(answer: Recommendation) -> str:
    """The options that make a sweep end with the same question."""
    criteria = answer.criteria
    scored = [name for name in answer.curves if name != VOTES]
    rewards, objectives = (shlex.quote(",".join(names)) for names in (scored, criteria.objectives))
    text = f"--rewards {rewards} --objective {objectives}" if scored else f"--objective {objectives}"
    guards = ",".join(map(format_guard, criteria.guards))
    return text + (f" --guard {shlex.quote(guards)}" if guards else "")
