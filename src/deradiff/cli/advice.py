"""Next steps as commands that can be pasted, with their cost."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deradiff.cli.common import duration

if TYPE_CHECKING:
    from deradiff.analysis.recommend import Recommendation
    from deradiff.runs.cells import Request
    from deradiff.runs.run import Run


def next_commands(answer: "Recommendation", folder: Path) -> Iterator[tuple[str, str]]:
    """The purpose of each, and the command."""
    from deradiff.analysis.commands import more_lams, more_prompts, more_prompts_title
    from deradiff.runs.run import Run

    run = Run(folder)
    if not run.store.requests():  # the file was lost, so what a sweep would request is unknown
        return
    if command := more_lams(answer, folder):
        yield "More lams", f"{command}{_cost(run, run.requests(lams=answer.suggested_lams))}"
    if prompts := more_prompts(answer, folder):
        count, command = prompts
        cost = _cost(run, run.requests([f"prompt {number} of more.txt" for number in range(count)]))
        yield more_prompts_title(count), f"{command}{cost}"


def _cost(run: "Run", requests: "Sequence[Request]") -> str:
    """Images and time of a command, from what the run has recorded."""
    cost = run.cost(requests)
    text = f"  # {cost.missing:,} images"
    return text if cost.seconds is None else f"{text}, about {duration(cost.seconds)} here"
