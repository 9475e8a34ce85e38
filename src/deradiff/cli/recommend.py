"""``deradiff recommend``: which lam to take, from a run on disk, without any model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from deradiff.cli.options import ChosenGuidance, Guard, KLBudget, Objective, Run

if TYPE_CHECKING:
    from rich.table import Table

    from deradiff.recommend import Interval, Recommendation
    from deradiff.results import Results
    from deradiff.search.answer import Answer
    from deradiff.search.folder import Folder
    from deradiff.search.observed import Observed


def recommend(
    run: Run,
    objective: Objective,
    guard: Guard = None,
    kl_budget: KLBudget = None,
    guidance: ChosenGuidance = None,
) -> None:
    """Say which lam to take, how sure that is, why, and whether the objective is hacked."""
    from deradiff.cli.report import tables
    from deradiff.search.folder import Folder

    if Folder.holds(run):
        answer, seen = searched(Folder.open(run), objective, guard, kl_budget, guidance)
        tell_searched(answer.choice, answer.interval, seen)
    else:
        for at, results in tables(run, guidance):
            say(results, objective, guard, kl_budget, at)


def say(results: "Results", objective: str, guard: str | None, kl_budget: float | None, at: str | None) -> None:
    """Recommend a lam, and print that."""
    from deradiff.recommend import recommend as choose

    tell(choose(results, objective=objective, guard=guard, kl_budget=kl_budget), range(len(results.lams)), at)


def searched(
    folder: "Folder", objective: str, guard: str | None, kl_budget: float | None, guidance: float | None
) -> "tuple[Answer, Observed]":
    """What a search on disk answers, and what it sampled."""
    from deradiff.errors import PlanError
    from deradiff.search import Settings
    from deradiff.search.answer import answered

    own = folder.plan.guidances[0]
    if guidance not in (None, own):
        raise PlanError(f"the search is at guidance {own}, and {guidance:g} was asked for; leave that out")
    settings = Settings.of(objective=objective, guard=guard, kl_budget=kl_budget, highest=folder.plan.lams[-1])
    seen, like = folder.observed()
    return answered(seen, settings, like), seen


def tell_searched(choice: "Recommendation", interval: tuple[float, float], seen: "Observed") -> None:
    """Print what a search says, the curves at the lams it sampled."""
    low, high = interval
    images, whole, lams = int(seen.known.sum()), seen.known.size, seen.known.shape[2]
    typer.echo(f"{images:,} images, {images / whole:.0%} of the {whole:,} of a grid of {lams} lams")
    typer.echo(f"sampling the rest would leave lam between {low:g} and {high:g} (95 %)")
    tell(choice, seen.lams)


def tell(choice: "Recommendation", places: Iterable[int], at: str | None = None) -> None:
    """Print a recommendation, the curves at some places among its lams; the last line is the lam."""
    from rich.console import Console

    typer.echo("")
    console, table = Console(), _table(choice, sorted({*places, choice.place}))
    # many guards take more than a narrow terminal has: long lines wrap there, but no figure is lost
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
    typer.echo(f"\n{choice.reason}\n\nHow sure: {choice.certainty}")
    for alarm in choice.hacking:
        typer.echo(f"Hacking alarm: {alarm}")
    if choice.silence:
        typer.echo(f"Hacking alarm: {choice.silence}")
    for warning in choice.warnings:
        typer.echo(f"Note: {warning}")
    beta = "" if choice.beta is None else f" (beta {choice.beta:.3g})"
    typer.echo(f"recommended lam{f' at {at}' if at else ''}: {choice.lam:g}{beta}")


def _table(choice: "Recommendation", places: list[int]) -> "Table":
    """The asked rewards along lam: change to the reference, win rate against it, whether the lam may be taken."""
    from rich import box
    from rich.table import Table

    curves = [choice.curves[name] for name in choice.question.rewards]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="changes to lam = 0 with 95 % limits; wins against it")
    table.add_column("lam", justify="right")
    table.add_column("beta", justify="right")
    for curve in curves:
        table.add_column(curve.reward, justify="right", no_wrap=True)
        table.add_column("wins", justify="right")
    table.add_column("")
    for place in places:
        lam = curves[0].lams[place]
        beta = choice.betas[place]
        figures = [text for curve in curves for text in (_change(curve.change[place]), _wins(curve.wins[place]))]
        if lam == 0:
            figures = ["reference", ""] * len(curves)
        verdict = "taken" if lam == choice.lam else "" if choice.allowed[place] else "refused"
        style = "bold" if lam == choice.lam else "" if choice.allowed[place] else "dim"
        table.add_row(f"{lam:g}", "" if beta is None else f"{beta:.3g}", *figures, verdict, style=style)
    return table


def _wins(wins: "Interval | None") -> str:
    return "" if wins is None else f"{wins.mean:.0%}"


def _change(change: "Interval") -> str:
    mean, *_ = change.figures
    decimals = len(mean.partition(".")[2])
    return f"{mean} ± {change.high - change.mean:.{decimals}f}"
