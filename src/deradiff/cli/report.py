"""``deradiff score``, ``report``, ``export`` and ``merge``: from runs on disk, without any model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deradiff.cli.common import echo
from deradiff.cli.options import (
    ChosenGuidance,
    Device,
    GpusPerWorker,
    Guard,
    KLBudget,
    Objective,
    Prefer,
    Ray,
    RayWorkers,
    Risk,
    Run,
    ScorerDtype,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deradiff.analysis.criteria import Criteria
    from deradiff.results import Results


def score(
    ctx: typer.Context,
    run: Run,
    rewards: Annotated[
        str,
        typer.Option(
            help="Names (see deradiff rewards), NAME=/folder with its files, module:function or the url of a reward "
            "server, separated by commas."
        ),
    ],
    device: Device = "auto",
    dtype: ScorerDtype = "float32",
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Score the images of a run after the fact."""
    from deradiff.cli.common import listed, scoring_each
    from deradiff.cli.planning import cluster_given
    from deradiff.errors import RewardError
    from deradiff.rewards import check_distinct
    from deradiff.runs.legacy import open_run_folder
    from deradiff.runs.results import journalled_images
    from deradiff.runs.scoring import score as score_run

    store = open_run_folder(run)
    if not listed(rewards):
        raise RewardError("no reward to score; name one or more: --rewards pickscore,hps")
    check_distinct(listed(rewards))
    cluster = cluster_given(ctx.params)
    with scoring_each(
        listed(rewards),
        len(journalled_images(store)),
        lambda name, advance: score_run(store, name, advance, device=device, dtype=dtype, backend=cluster),
    ):
        pass


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN [OTHER]", help="A run folder; with another one, both side by side.")
    ],
    objective: Objective,
    guard: Guard = None,
    kl_budget: KLBudget = None,
    risk: Risk = 0.05,
    prefer: Prefer = None,
    guidance: ChosenGuidance = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write every plot as PNG and SVG, and a grid of images.")
    ] = False,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Also write the answer as Markdown, with the figures if there are some."),
    ] = False,
) -> None:
    """Write the run's report, one self-contained html file; several guidances are tabs in it.

    Of two runs (two anchors, two recipes) it shows the prompts, seeds and lams that they share, side by side.
    """
    from deradiff.cli.parsing import parse_criteria
    from deradiff.errors import ConfigError

    criteria = parse_criteria(objective, guard, kl_budget, risk, prefer)
    if len(runs) > 2:
        raise ConfigError(f"expected one run or two, got {len(runs)}")
    if len(runs) == 2:
        if figures or markdown:
            raise ConfigError(
                "--figures and --markdown write the answer of one run, and two runs side by side have none; leave them "
                "out, or report each run by itself"
            )
        _report_pair(runs[0], runs[1], criteria, guidance)
    else:
        report_run(runs[0], criteria, guidance, figures=figures, markdown=markdown)


def report_run(
    run: Path,
    criteria: "Criteria",
    guidance: float | None = None,
    *,
    figures: bool = False,
    markdown: bool = False,
) -> None:
    """Write a run's report and print its answers."""
    from deradiff.analysis.recommend import recommend_for
    from deradiff.cli.common import progress
    from deradiff.cli.recommend import answer_of_search, iter_tables, print_recommendation, print_search
    from deradiff.report import write_report

    tables = {at or "": results for at, results in iter_tables(run, guidance)}
    searches = {at: answer_of_search(run, results, criteria) for at, results in tables.items()}
    found = {at: search for at, search in searches.items() if search is not None}
    shown = {at: found[at].sampled if at in found else results for at, results in tables.items()}
    answers = {
        at: found[at].recommendation if at in found else recommend_for(results, criteria)
        for at, results in tables.items()
    }
    with progress("thumbnails", sum(int((table.images != "").sum()) for table in shown.values())) as advance:
        path = write_report(
            shown, answers, run / _page_name(tables, guidance), figures=figures, markdown=markdown, progress=advance
        )
    echo(f"\nreport: {path.resolve()}")
    for at, results in tables.items():
        if at in found:
            print_search(found[at], run)
        else:
            print_recommendation(answers[at], range(len(results.lams)), run, results, at or None)


def _page_name(tables: "Mapping[str, Results]", guidance: float | None) -> str:
    """Of a run's page; one guidance among several has its own."""
    at = next(iter(tables))
    return f"report-{at.replace(' ', '-')}.html" if guidance is not None and at else "report.html"


def _report_pair(one: Path, other: Path, criteria: "Criteria", guidance: float | None) -> None:
    from deradiff.cli.common import progress
    from deradiff.report.pair import write_pair_report
    from deradiff.runs.legacy import open_run_folder
    from deradiff.runs.results import load_results

    first, second = (load_results(open_run_folder(run), guidance) for run in (one, other))
    runs, target = {str(one): first, str(other): second}, one / f"report-{other.name}.html"
    with progress("thumbnails", sum(int((table.images != "").sum()) for table in runs.values())) as advance:
        path = write_pair_report(runs, criteria.rewards, target, progress=advance)
    echo(f"report: {path.resolve()}")


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv; .db for optuna.")],
    format: Annotated[
        Literal["table", "votes", "optuna"],
        typer.Option(
            help="table: a row an image. votes: a row a vote. optuna: a study with a trial a lam, which takes the "
            "options below."
        ),
    ] = "table",
    objective: Annotated[str | None, typer.Option(help="Reward to raise; several: a,b.")] = None,
    guard: Guard = None,
    kl_budget: KLBudget = None,
    risk: Risk = 0.05,
    guidance: ChosenGuidance = None,
) -> None:
    """Write a run as a table of its images or votes, or as an Optuna study; an unfinished one as far as it is."""
    from deradiff.cli.parsing import parse_criteria
    from deradiff.errors import ConfigError

    if format == "optuna":
        if objective is None:
            raise ConfigError("a study needs the reward to raise: add --objective with one of the run's rewards")
        _export_study(run, out, parse_criteria(objective, guard, kl_budget, risk), guidance)
        return
    options = {"--objective": objective, "--guard": guard, "--kl-budget": kl_budget, "--guidance": guidance}
    if extra := [name for name, value in options.items() if value is not None]:
        raise ConfigError(f"{', '.join(extra)} belong to --format optuna; a table has all of a run, so leave them out")
    if format == "votes":
        _export_votes(run, out)
    else:
        _export_table(run, out)


def _export_table(run: Path, out: Path) -> None:
    from deradiff.runs.cells import union
    from deradiff.runs.export import export as export_run
    from deradiff.runs.legacy import open_run_folder
    from deradiff.runs.results import journalled_images

    store = open_run_folder(run)
    count, there = export_run(store, out), journalled_images(store)
    requested = found = 0
    for cell in union(store.requests()):
        requested, found = requested + 1, found + (cell in there)
    if not requested:
        echo(f"{out}: {count:,} image{'s' * (count != 1)}")
        return
    others = f", and {count - found:,} more" if count > found else ""
    echo(f"{out}: {found:,} of the {requested:,} images asked for{others}")


def _export_votes(run: Path, out: Path) -> None:
    from deradiff.runs.export import export_votes
    from deradiff.runs.legacy import open_run_folder

    count = export_votes(open_run_folder(run), out)
    echo(f"{out}: {count:,} vote{'s' * (count != 1)}")


def _export_study(run: Path, out: Path, criteria: "Criteria", guidance: float | None) -> None:
    from deradiff.analysis.recommend import recommend_for
    from deradiff.cli.recommend import answer_of_search
    from deradiff.runs.legacy import open_run_folder
    from deradiff.runs.results import load_results
    from deradiff.study import NAME, write_study

    results = load_results(open_run_folder(run), guidance)
    search_result = answer_of_search(run, results, criteria)
    if search_result is None:
        count = write_study(results, recommend_for(results, criteria), out)
    else:
        count = write_study(search_result.table, search_result.recommendation, out, indices=search_result.sampled_lams)
    echo(f"{out}: the study {NAME!r} of {count} trial{'s' * (count != 1)}")


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one recipe: shards, colleagues', machines'.")],
    out: Annotated[Path, typer.Option(help="Run folder to copy into; made where there is none.")],
) -> None:
    """Put runs of one recipe together: images, scores and requests of all."""
    from deradiff.runs.merge import merge as merge_runs

    merged = merge_runs(runs, out)
    echo(f"{out}: {merged.images:,} images copied from {len(runs)} run{'s' * (len(runs) != 1)}")
    for line in merged.contradictions:
        echo(f"Not taken, as the runs contradict each other: {line}", err=True)
    if merged.contradictions:
        raise typer.Exit(1)
