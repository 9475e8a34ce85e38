"""What a comparison found, as tables in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as Drawn

from deradiff.cli.common import echo, plain
from deradiff.compare.optimum import RETRAINED
from deradiff.compare.outcome import Table
from deradiff.compare.page import EMULATIONS, NAMES

WIDTH = 132  # of a table


def show(table: Table) -> None:
    """Print each arm's error by beta, in the units of the reward and as a share of the spread."""
    console = Console()
    console.width = max(console.width, WIDTH)
    means = [row.retrained_mean for row in table.arm_rows(EMULATIONS[0])]
    console.print(_drawn(table.title, "retrained", means, {arm: table.arm_rows(arm) for arm in EMULATIONS}))
    if table.optimum and (optimum_rows := table.optimum.arm_rows(RETRAINED)):
        rows = {arm: table.optimum.arm_rows(arm) for arm in (RETRAINED, *EMULATIONS[:-1])}
        title = f"{table.title}, against the optimum of {table.optimum.objective} on {table.optimum.prompts} prompts"
        console.print(_drawn(title, "optimum", [row.optimum for row in optimum_rows], rows))
    for warning in table.warnings:
        echo(f"Note: {warning}")


def _drawn(title: str, goal: str, means: list[float], rows: Mapping[str, list[Any]]) -> Any:
    drawn = Drawn("beta", goal, *(NAMES[arm] for arm in rows), title=plain(title), title_justify="left")
    for mean, *errors_of_arms in zip(means, *rows.values(), strict=True):
        errors = (f"{row.error.figures[0]} ({percent(row.share_of_spread)})" for row in errors_of_arms)
        drawn.add_row(f"{errors_of_arms[0].beta:g}", f"{mean:.3g}", *errors)
    return drawn


def percent(value: float | None) -> str:
    """A share in words."""
    return "unknown" if value is None else f"{value:.1%}"
