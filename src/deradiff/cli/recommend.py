"""``deradiff recommend``: which lam to take, from a run on disk, without any model."""

import json
import shlex
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deradiff.cli.common import echo, plain
from deradiff.cli.options import ChosenGuidance, Guard, KLBudget, Objective, Prefer, Risk, Run

if TYPE_CHECKING:
    from rich.table import Table

    from deradiff.analysis.criteria import Criteria
    from deradiff.analysis.recommend import Recommendation
    from deradiff.analysis.statistics import Interval
    from deradiff.results import Results
    from deradiff.search.search import SearchResult

SCHEMA = 1  # of --json
_STYLES = {"shown to hold": "", "not settled": "dim", "fails": "dim red"}


def recommend(
    run: Run,
    objective: Objective,
    guard: Guard = None,
    kl_budget: KLBudget = None,
    risk: Risk = 0.05,
    prefer: Prefer = None,
    guidance: ChosenGuidance = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead, for other programs.")] = False,
) -> None:
    """Say which lam to take, what is shown to hold there, what isn't settled, and whether the objective is hacked."""
    from deradiff.analysis.recommend import recommend_for
    from deradiff.cli.parsing import parse_criteria

    criteria = parse_criteria(objective, guard, kl_budget, risk, prefer)
    if as_json:
        _print_json(run, criteria, guidance)
        return
    for at, results in iter_tables(run, guidance):
        search_result = answer_of_search(run, results, criteria)
        if search_result is None:
            print_recommendation(recommend_for(results, criteria), range(len(results.lams)), run, results, at)
        else:
            print_search(search_result, run)


def iter_tables(run: Path, guidance: float | None) -> Iterator[tuple[str | None, "Results"]]:
    """Results at each guidance or the one asked for, with its name where the run has several."""
    from deradiff.runs.results import guidance_name

    for scale, has_several, results in _tables(run, guidance):
        yield guidance_name(scale) if has_several else None, results


def _tables(run: Path, guidance: float | None) -> Iterator[tuple[float | None, bool, "Results"]]:
    """Results at each guidance or the one asked for: the scale, whether the run has several, and the table."""
    from deradiff.runs.legacy import open_run_folder
    from deradiff.runs.results import guidances_of, journalled_images, load_results

    store = open_run_folder(run)
    images = journalled_images(store)
    guidances = guidances_of(store, images)
    for scale in guidances if guidance is None else [guidance]:
        yield scale, len(guidances) > 1, load_results(store, scale, images=images)


def _print_json(run: Path, criteria: "Criteria", guidance: float | None) -> None:
    """Print the answers at each guidance as one JSON object, in ASCII; its keys are in docs/recommend.md."""
    answers = [_answer(run, scale, results, criteria) for scale, _, results in _tables(run, guidance)]
    content = {"schema": SCHEMA, "deradiff": version("deradiff"), "run": str(run), "answers": answers}
    echo(json.dumps(content, indent=1, allow_nan=False))


def _answer(run: Path, guidance: float | None, results: "Results", criteria: "Criteria") -> dict[str, Any]:
    from deradiff.analysis.as_json import as_json
    from deradiff.analysis.recommend import recommend_for

    search = answer_of_search(run, results, criteria)
    answer = recommend_for(results, criteria) if search is None else search.recommendation
    searched = None if search is None else {"images": search.images, "interval": list(search.interval)}
    return {"guidance": guidance, "missing": results.missing, "search": searched, **as_json(answer)}


def answer_of_search(run: Path, results: "Results", criteria: "Criteria") -> "SearchResult | None":
    """The surrogate's answer for a run that was searched; None for one that was only swept, and of votes, which no
    surrogate of scores can fill in."""
    from deradiff.search.state import answer_searched, read_state

    state = None if criteria.by_votes else read_state(run)
    return None if state is None else answer_searched(results, state, criteria)


def print_search(search_result: "SearchResult", run: Path) -> None:
    """Print the answer of a search, with the curves at the lams that it sampled or names."""
    low, high = search_result.interval
    prompts, seeds, lams = search_result.sampled.shape
    whole = prompts * seeds * lams
    echo(
        f"{search_result.images:,} images, {search_result.images / whole:.0%} of the {whole:,} of a grid of {lams} lams"
    )
    where = f"lam = {low:g}" if low == high else f"a lam between {low:g} and {high:g}"
    echo(
        f"with every image of that grid these prompts would choose {where} (in 95% of the surrogate's draws, "
        "if rewards change smoothly along lam)"
    )
    print_recommendation(search_result.recommendation, search_result.sampled_lams, run, search_result.sampled)


def print_recommendation(
    answer: "Recommendation", indices: Iterable[int], run: Path, results: "Results", at: str | None = None
) -> None:
    """Print a recommendation, the curves at some of its lams; the last line is the lam."""
    from rich.console import Console

    from deradiff.analysis import messages
    from deradiff.cli.advice import next_commands

    echo("")
    console, table = Console(), _table(answer, sorted({*indices, *answer.named_lams}))
    # many guards take more than a narrow terminal has: long lines wrap there, but no figure is lost
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
    echo("")
    if results.missing:
        verb = "isn't" if results.missing == 1 else "aren't"
        again = f"deradiff sweep --out {shlex.quote(str(run))}"
        echo(f"{results.missing:,} of the images asked for {verb} there yet: {again}")
    for sentence in messages.reasons(answer):
        echo(sentence)
    echo(f"\nAt other risks: {messages.by_risk(answer)}")
    if settle := messages.to_settle(answer):
        echo(f"To settle it: {settle}")
    for alarm in answer.raised_alarms:
        echo(f"Hacking alarm: {messages.alarm_sentence(alarm, answer.prompts)}")
    if no_alarm := messages.no_alarm_message(answer):
        echo(f"Hacking alarm: {no_alarm}")
    for warning in messages.warnings(answer):
        echo(f"Note: {warning}")
    for what, command in next_commands(answer, run):
        echo(f"{what}: {command}")
    echo(f"recommended {messages.headline(answer, at)}")


def _table(answer: "Recommendation", indices: list[int]) -> "Table":
    """The rewards of the question along lam: change to the reference, win rate against it, and the verdict."""
    from rich import box
    from rich.table import Table

    curves = [answer.curves[name] for name in answer.criteria.rewards]
    filled_in = not all(map(answer.is_sampled, range(len(answer.lams))))
    source = "the surrogate's changes to lam = 0" if filled_in else "changes to lam = 0"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"{source} with 95% limits; wins against it")
    table.add_column("lam", justify="right")
    table.add_column("beta", justify="right")
    for curve in curves:
        table.add_column(plain(curve.reward), justify="right", no_wrap=True)
        table.add_column("wins", justify="right")
    table.add_column("guards" if answer.constraints else "")
    for index in indices:
        lam, beta = answer.lams[index], answer.betas[index]
        figures = [text for curve in curves for text in (_change(curve.change[index]), _wins(curve.wins[index]))]
        if lam == 0:
            figures = ["reference", ""] * len(curves)
        is_recommended = index == answer.index
        style = "bold" if is_recommended else _STYLES[answer.verdicts[index]]
        table.add_row(
            f"{lam:g}", "" if beta is None else f"{beta:.3g}", *figures, plain(_mark(answer, index)), style=style
        )
    return table


def _mark(answer: "Recommendation", index: int) -> str:
    """The last cell of a row: verdict, whether images were sampled there, whether it is the answer."""
    from deradiff.analysis.messages import verdict_reason

    shown = "shown to hold" if answer.constraints and answer.lams[index] != 0 else ""
    marks = [
        verdict_reason(answer, index) or shown,
        "" if answer.is_sampled(index) else "not sampled",
        "recommended" if index == answer.index else "",
    ]
    return ", ".join(filter(None, marks))


def _wins(wins: "Interval") -> str:
    return "" if wins.mean != wins.mean else f"{wins.mean:.0%}"


def _change(change: "Interval") -> str:
    if change.mean != change.mean or change.high == float("inf"):
        return ""
    return "{} [{}, {}]".format(*change.figures)
