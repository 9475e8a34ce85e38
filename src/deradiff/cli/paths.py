"""``deradiff reweight`` and ``calibrate``: what a run's paths tell, without any model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deradiff.cli.common import echo, plain
from deradiff.cli.options import ChosenGuidance, Objective, Run

if TYPE_CHECKING:
    from deradiff.analysis.calibrate import Calibration
    from deradiff.anchor.location import Location


def reweight(
    run: Run,
    objective: Objective,
    lams: Annotated[str, typer.Option(help="Where, in [0, 1]: 0,0.3,1 or start:stop:count.")] = "0:1:11",
    sampled: Annotated[
        str | None, typer.Option("--from", help="Lams of the run whose images to use; default: all in [0, 1].")
    ] = None,
    guidance: ChosenGuidance = None,
) -> None:
    """Tell a reward's whole curve over lam from images at a few lams, such as those of sweep --lams 0,1."""
    from rich.console import Console
    from rich.table import Table

    from deradiff.analysis.reweight import reweight as estimate_curve
    from deradiff.cli.parsing import parse_numbers
    from deradiff.cli.recommend import iter_tables

    asked_lams, used = parse_numbers(lams), None if sampled is None else parse_numbers(sampled)
    for at, results in iter_tables(run, guidance):
        curve = estimate_curve(results, objective, asked_lams, used)
        from_lams = ", ".join(f"{lam:g}" for lam in curve.sampled)
        title = f"{objective} of the exact mixture{f' at {at}' if at else ''}, from images at lam = {from_lams}"
        table = Table(title=plain(title), title_justify="left")
        for column in ("lam", plain(objective), "change [95%]", "KL (nats)", "ESS", ""):
            table.add_column(column)
        for lam, score, change, kl, ess, trusted in zip(
            curve.lams, curve.score, curve.change, curve.kl, curve.ess, curve.trusted, strict=True
        ):
            mean, low, high = change.figures
            trust = "" if trusted else "not to be trusted"
            table.add_row(f"{lam:g}", f"{score.mean:.3g}", f"{mean} [{low}, {high}]", f"{kl:.3g}", f"{ess:.0%}", trust)
        Console().print(table)


def calibrate(
    run: Run,
    objective: Objective,
    write: Annotated[
        bool, typer.Option("--write", help="Write it into the anchor's card, beside the nominal beta.")
    ] = False,
    guidance: ChosenGuidance = None,
) -> None:
    """Estimate the beta that an anchor behaves like under a reward, from images of the reference (lam = 0)."""
    from deradiff.analysis.calibrate import calibrate as estimate
    from deradiff.cli.recommend import iter_tables
    from deradiff.runs.legacy import open_run_folder

    store = open_run_folder(run)
    anchor = store.located(store.recipe.anchor)
    for at, results in iter_tables(run, guidance):
        calibration = estimate(results, objective, results.anchor_beta)
        for line in _lines(calibration, at):
            echo(line)
        if write:
            what = "written" if calibration.beta else "its refusal is written"
            echo(f"{what}: {_write(anchor, store.recipe.anchor_location, objective, calibration, at)}")


def _lines(calibration: "Calibration", at: str | None) -> list[str]:
    low, high = calibration.slope_interval
    first = (
        f"{f'{at}: ' if at else ''}L rises by {calibration.slope:.3g} nats a unit of {calibration.reward} "
        f"(95% interval {low:.3g} to {high:.3g}; R² {calibration.r2:.2f} within {calibration.prompts} prompts, "
        f"{calibration.images} images)"
    )
    nominal = "" if calibration.nominal is None else f"; its nominal beta is {calibration.nominal:g}"
    if calibration.beta is None or calibration.beta_interval is None:
        return [first, f"{calibration.refusal}{nominal}"]
    low, high = calibration.beta_interval
    return [
        first,
        f"the anchor behaves like beta = {calibration.beta:.3g} (95% interval {low:.3g} to {high:.3g}){nominal}",
    ]


def _write(anchor: str, location: "Location", objective: str, calibration: "Calibration", at: str | None) -> Path:
    from dataclasses import asdict

    from deradiff.anchor.source import card_of, write_card
    from deradiff.errors import ConfigError
    from deradiff.testbed import EMBEDDED

    if anchor.partition(":")[0] == EMBEDDED:
        raise ConfigError("the cards of embedded anchors belong to the package; copy the anchor, and sweep with that")
    figures = {name: value for name, value in asdict(calibration).items() if name not in ("reward", "nominal")}
    entry = {name: getattr(calibration, name) for name in ("beta", "beta_interval", "refusal")} | figures
    before = card_of(anchor, location).get("behaves_like", {})
    entries = {"behaves_like": {**before, f"{objective}, {at}" if at else objective: entry}}
    return write_card(anchor, entries, location)
