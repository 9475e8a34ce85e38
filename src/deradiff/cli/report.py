"""``deradiff score``, ``recommend`` and ``report``: from a run on disk, without any model."""

from pathlib import Path
from typing import Annotated

import typer

from deradiff.cli.common import Guard, Objective, Run


def score(
    run: Run, rewards: Annotated[str, typer.Option(help="Names, or module:function, separated by commas.")]
) -> None:
    """Score the images of a run after the fact."""
    from deradiff.cli.common import progress
    from deradiff.sweep import Journal
    from deradiff.sweep.run import score as score_run

    journal = Journal.open(run)
    journal.results()  # an unfinished run is told before anything is scored
    for name in [part.strip() for part in rewards.split(",") if part.strip()]:
        with progress(name, sum(1 for _ in journal.plan.cells())) as advance:
            score_run(journal, name, advance)


def recommend(run: Run, objective: Objective, guard: Guard = None) -> None:
    """Say which lam to take and why."""
    from deradiff.recommend import recommend as choose
    from deradiff.sweep import Journal

    choice = choose(Journal.open(run).results(), objective=objective, guard=guard)
    typer.echo(choice.reason)
    for warning in choice.warnings:
        typer.echo(f"Note: {warning}")
    typer.echo(f"recommended lam: {choice.lam:g}")


def report(run: Run, objective: Objective, guard: Guard = None) -> None:
    """Write the run's report, one self-contained html file."""
    write(run, objective, guard)


def write(run: Path, objective: str, guard: str | None) -> None:
    """Write a run's report; prints its path, the reason, and last the recommended lam."""
    from deradiff.report import write_report
    from deradiff.sweep import Journal

    path = write_report(Journal.open(run).results(), run / "report.html", objective=objective, guard=guard)
    typer.echo(f"report: {path.resolve()}")
    recommend(run, objective, guard)
