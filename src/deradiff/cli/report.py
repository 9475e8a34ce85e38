"""``deradiff score``, ``recommend``, ``report`` and ``export``: from a run on disk, without any model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deradiff.cli.options import Guard, Objective, Run

if TYPE_CHECKING:
    from deradiff.results import Results

ChosenGuidance = Annotated[
    float | None, typer.Option(help="Guidance scale to look at, where several were swept; default: each in turn.")
]


def score(
    run: Run, rewards: Annotated[str, typer.Option(help="Names, or module:function, separated by commas.")]
) -> None:
    """Score the images of a run after the fact."""
    from deradiff.cli.common import listed, progress
    from deradiff.sweep import Journal
    from deradiff.sweep.score import score as score_run

    journal = Journal.open(run)
    for name in listed(rewards):
        with progress(name, journal.plan.count) as advance:
            score_run(journal, name, advance)


def recommend(run: Run, objective: Objective, guard: Guard = None, guidance: ChosenGuidance = None) -> None:
    """Say which lam to take and why."""
    for at, results in tables(run, guidance):
        _recommend(results, objective, guard, at)


def report(run: Run, objective: Objective, guard: Guard = None, guidance: ChosenGuidance = None) -> None:
    """Write the run's report, one self-contained html file; where several guidances were swept, one for each."""
    from deradiff.report import write_report

    for at, results in tables(run, guidance):
        name = f"report-{at.replace(' ', '-')}.html" if at else "report.html"
        path = write_report(results, run / name, objective=objective, guard=guard, at=at)
        typer.echo(f"\nreport: {path.resolve()}")
        _recommend(results, objective, guard, at)


def export(run: Run, out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")]) -> None:
    """Write a run as one table, a row an image; an unfinished one as far as it is."""
    from deradiff.sweep import Journal
    from deradiff.sweep.export import export as export_run

    journal = Journal.open(run)
    count = export_run(journal, out)
    typer.echo(f"{out}: {count:,} of the run's {journal.plan.count:,} images")


def tables(run: Path, guidance: float | None) -> Iterator[tuple[str | None, "Results"]]:
    """Each guidance's results, or those of the one asked for, and the words that tell it from others of the run."""
    from deradiff.sweep import Journal

    journal = Journal.open(run)
    guidances = journal.plan.guidances
    for own in guidances if guidance is None else [guidance]:
        yield f"guidance {own:g}" if len(guidances) > 1 else None, journal.results(own)


def _recommend(results: "Results", objective: str, guard: str | None, at: str | None) -> None:
    from deradiff.recommend import recommend as choose

    choice = choose(results, objective=objective, guard=guard)
    typer.echo(choice.reason)
    for warning in choice.warnings:
        typer.echo(f"Note: {warning}")
    typer.echo(f"recommended lam{f' at {at}' if at else ''}: {choice.lam:g}")
