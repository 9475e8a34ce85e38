"""Next steps as commands that can be pasted, with their cost."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deradiff.cli.common import duration
from deradiff.votes import VOTES

if TYPE_CHECKING:
    from deradiff.analysis.criteria import Guard
    from deradiff.analysis.recommend import Recommendation
    from deradiff.runs.cells import Request
    from deradiff.runs.run import Run


def next_commands(answer: "Recommendation", folder: Path) -> Iterator[tuple[str, str]]:
    """The purpose of each, and the command."""
    from deradiff.runs.run import Run

    run = Run(folder)
    if not run.store.requests():  # the file was lost, so what a sweep would request is unknown
        return
    common = f"deradiff sweep --out {shlex.quote(str(folder))}"
    scoring = _question_options(answer)
    if answer.suggested_lams:
        lams = ",".join(f"{lam:g}" for lam in answer.suggested_lams)
        cost = _cost(run, run.requests(lams=answer.suggested_lams))
        yield "More lams", f"{common} --lams {lams} {scoring}{cost}"
    if answer.settled_by is not None and answer.settled_by[1] > answer.prompts:
        more = answer.settled_by[1] - answer.prompts
        cost = _cost(run, run.requests([f"prompt {number} of more.txt" for number in range(more)]))
        yield (
            f"{more:,} more prompt{'s' * (more > 1)}, one a line of more.txt",
            f"{common} --prompts more.txt {scoring}{cost}",
        )


def _question_options(answer: "Recommendation") -> str:
    """The options that make a sweep end with the same question."""
    criteria = answer.criteria
    scored = [name for name in answer.curves if name != VOTES]
    rewards, objectives = (shlex.quote(",".join(names)) for names in (scored, criteria.objectives))
    text = f"--rewards {rewards} --objective {objectives}" if scored else f"--objective {objectives}"
    guards = ",".join(map(format_guard, criteria.guards))
    return text + (f" --guard {shlex.quote(guards)}" if guards else "")


def format_guard(guard: "Guard") -> str:
    """A guard as `deradiff.cli.parsing.parse_guards` reads it."""
    if guard.margin is None:
        return guard.reward
    share = f"{100 * guard.margin:.12g}%" if guard.relative else f"{guard.margin:.12g}"
    return f"{guard.reward}:{'±' if guard.both else '-'}{share}"


def _cost(run: "Run", requests: "Sequence[Request]") -> str:
    """Images and time of a command, from what the run has recorded."""
    cost = run.cost(requests)
    text = f"  # {cost.missing:,} images"
    return text if cost.seconds is None else f"{text}, about {duration(cost.seconds)} here"
