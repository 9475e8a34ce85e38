"""``deradiff score``, ``report``, ``export`` and ``study``: from a run on disk, without any model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deradiff.cli.options import ChosenGuidance, Device, Dtype, Guard, KLBudget, Objective, Prefer, Risk, Run

if TYPE_CHECKING:
    from deradiff.results import Results
    from deradiff.sweep import Journal


def score(
    run: Run,
    rewards: Annotated[
        str,
        typer.Option(
            help="Names (see deradiff rewards), NAME=/folder with its files, module:function or the url of a reward "
            "server, separated by commas."
        ),
    ],
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Score the images of a run after the fact."""
    from deradiff.cli.common import listed, progress
    from deradiff.errors import RewardError
    from deradiff.search.folder import Folder
    from deradiff.search.rounds import refuse_relational
    from deradiff.sweep.score import score as score_run

    journals = journals_of(run)
    if not listed(rewards):
        raise RewardError("no reward to score; name one or more: --rewards pickscore,hps")
    if Folder.holds(run):
        refuse_relational(listed(rewards))
    for name in listed(rewards):
        with progress(name, sum(journal.plan.count for journal in journals)) as advance:
            for journal in journals:
                score_run(journal, name, advance, device=device, dtype=dtype)


def report(
    run: Run,
    objective: Objective,
    guard: Guard = None,
    kl_budget: KLBudget = None,
    risk: Risk = 0.05,
    prefer: Prefer = "smallest",
    guidance: ChosenGuidance = None,
) -> None:
    """Write the run's report, one self-contained html file; where several guidances were swept, one for each."""
    from deradiff.analysis.recommend import recommend_for
    from deradiff.cli.parsing import parse_criteria
    from deradiff.cli.recommend import print_recommendation
    from deradiff.report import write_report

    criteria = parse_criteria(objective, guard, kl_budget, risk, prefer)
    for at, results in tables(run, guidance):
        name = f"report-{at.replace(' ', '-')}.html" if at else "report.html"
        answer = recommend_for(results, criteria)
        path = write_report(results, answer, run / name, at=at)
        typer.echo(f"\nreport: {path.resolve()}")
        print_recommendation(answer, range(len(results.lams)), at)


def export(run: Run, out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")]) -> None:
    """Write a run or a search as one table, a row an image; an unfinished one as far as it is."""
    from deradiff.sweep.export import export as export_runs

    journals = journals_of(run)
    count, planned = export_runs(journals, out, run), sum(journal.plan.count for journal in journals)
    typer.echo(f"{out}: {count:,} of the run's {planned:,} images")


def study(
    run: Run,
    objective: Objective,
    out: Annotated[Path, typer.Option(help="File to write: .db, an SQLite storage of Optuna's.")],
    guard: Guard = None,
    kl_budget: KLBudget = None,
    risk: Risk = 0.05,
    guidance: ChosenGuidance = None,
) -> None:
    """Write a run or a search as an Optuna study, a trial a lam."""
    from deradiff.cli.parsing import parse_criteria
    from deradiff.cli.recommend import searched
    from deradiff.search.folder import Folder
    from deradiff.study import NAME, write_study
    from deradiff.sweep import Journal

    criteria = parse_criteria(objective, guard, kl_budget, risk)
    if Folder.holds(run):
        found = searched(Folder.open(run), criteria, guidance)
        results, indices = found.table, found.sampled_lams
    else:
        results, indices = Journal.open(run).results(guidance), None
    count = write_study(results, criteria, out, indices=indices)
    typer.echo(f"{out}: the study {NAME!r} of {count} trials")


def journals_of(run: Path) -> "list[Journal]":
    """That of a run, or of each round of a search."""
    from deradiff.search.folder import Folder
    from deradiff.sweep import Journal

    return Folder.open(run).rounds() if Folder.holds(run) else [Journal.open(run)]


def tables(run: Path, guidance: float | None) -> Iterator[tuple[str | None, "Results"]]:
    """Each guidance's results, or those of the one asked for, and the words that tell it from others of the run."""
    from deradiff.sweep import Journal

    journal = Journal.open(run)
    guidances = journal.plan.guidances
    for own in guidances if guidance is None else [guidance]:
        yield f"guidance {own:g}" if len(guidances) > 1 else None, journal.results(own)
