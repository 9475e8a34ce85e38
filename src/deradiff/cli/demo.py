"""``deradiff demo``: what lam does, on a pipeline that comes with the package."""

from pathlib import Path
from typing import Annotated

import typer

ANCHOR = "warmth-beta0.05-seed0"
LAMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PROMPTS, STEPS = 64, 20
OBJECTIVE, GUARD = "warmth", "faithfulness:-10%"


def demo(out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo")) -> None:
    """Sweep lam on the embedded pipeline and write a report: about a minute, offline."""
    from deradiff import testbed
    from deradiff.anchor.source import card_of
    from deradiff.cli.running import run_and_report
    from deradiff.runs.cells import Request
    from deradiff.runs.recipe import Recipe
    from deradiff.runs.run import Run
    from deradiff.testbed import EMBEDDED

    recipe = Recipe(
        model=EMBEDDED,
        anchor=f"{EMBEDDED}:{ANCHOR}",
        anchor_beta=card_of(testbed.anchor_path(ANCHOR))["beta"],
        steps=STEPS,
        batch_size=8 * len(LAMS),
    )
    asked = Request(
        prompts=testbed.prompts(PROMPTS, seed=11, drop=0.5),
        seeds=[0],  # one seed of many prompts shows more than many seeds of few
        lams=LAMS,
        guidances=[1.0],
    )
    run_and_report(Run(out, recipe), [asked], rewards=[OBJECTIVE, "faithfulness"], objective=OBJECTIVE, guard=GUARD)
