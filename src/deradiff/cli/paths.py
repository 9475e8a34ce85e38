"""``deradiff reweight`` and ``calibrate``: what a run's paths tell, without any model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deradiff.cli.options import ChosenGuidance, Objective, Run

if TYPE_CHECKING:
    from deradiff.analysis.calibrate import Calibration


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

    from deradiff.analysis.reweight import reweight as told
    from deradiff.cli.parsing import parse_numbers
    from deradiff.cli.recommend import tables

    wanted, used = parse_numbers(lams), None if sampled is None else parse_numbers(sampled)
    for at, results in tables(run, guidance):
        curve = told(results, objective, wanted, used)
        from_lams = ", ".join(f"{lam:g}" for lam in curve.sampled)
        title = f"{objective} of the exact mixture{f' at {at}' if at else ''}, from images at lam = {from_lams}"
        table = Table("lam", objective, "change [95 %]", "KL (nats)", "ESS", "", title=title, title_justify="left")
        for lam, score, change, kl, ess, trusted in zip(
            curve.lams, curve.score, curve.change, curve.kl, curve.ess, curve.trusted, strict=True
        ):
            mean, low, high = change.figures
            told_as = "" if trusted else "not to be trusted"
            table.add_row(
                f"{lam:g}", f"{score.mean:.3g}", f"{mean} [{low}, {high}]", f"{kl:.3g}", f"{ess:.0%}", told_as
            )
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
    from deradiff.cli.recommend import tables
    from deradiff.runs.legacy import open_run_folder

    store = open_run_folder(run)
    anchor = store.located(store.recipe.anchor)
    for at, results in tables(run, guidance):
        found = estimate(results, objective, results.anchor_beta)
        for line in _lines(found, at):
            typer.echo(line)
        if write:
            what = "written" if found.beta else "its refusal is written"
            typer.echo(f"{what}: {_write(anchor, objective, found, at)}")


def _lines(found: "Calibration", at: str | None) -> list[str]:
    low, high = found.slope_interval
    first = (
        f"{f'{at}: ' if at else ''}L rises by {found.slope:.3g} nats a unit of {found.reward} (95 % interval {low:.3g} "
        f"to {high:.3g}; R² {found.r2:.2f} within {found.prompts} prompts, {found.images} images)"
    )
    nominal = "" if found.nominal is None else f"; its nominal beta is {found.nominal:g}"
    if found.beta is None or found.beta_interval is None:
        return [first, f"{found.refusal}{nominal}"]
    low, high = found.beta_interval
    return [first, f"the anchor behaves like beta = {found.beta:.3g} (95 % interval {low:.3g} to {high:.3g}){nominal}"]


def _write(anchor: str, objective: str, found: "Calibration", at: str | None) -> Path:
    from dataclasses import asdict

    from deradiff.anchor.source import card_of, write_card
    from deradiff.errors import ConfigError
    from deradiff.testbed import EMBEDDED

    if anchor.partition(":")[0] == EMBEDDED:
        raise ConfigError("the cards of embedded anchors belong to the package; copy the anchor, and sweep with that")
    path = anchor
    told: dict[str, Any] = {"beta": found.beta, "beta_interval": found.beta_interval, "refusal": found.refusal}
    told |= {key: value for key, value in asdict(found).items() if key not in ("reward", "nominal")}
    before = card_of(path).get("behaves_like", {})
    return write_card(path, {"behaves_like": {**before, f"{objective}, {at}" if at else objective: told}})
