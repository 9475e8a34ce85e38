"""``deradiff demo``: what lam does, on a pipeline that comes with the package."""

from pathlib import Path
from typing import Annotated

import typer

LAMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
PROMPTS, SEEDS, STEPS = 10, 4, 20
OBJECTIVE, GUARD = "warmth", "faithfulness"


def demo(out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo")) -> None:
    """Sweep lam on the embedded pipeline and write a report: under a minute, offline."""
    from deradiff import testbed
    from deradiff.anchor.source import card_of
    from deradiff.cli.common import EMBEDDED
    from deradiff.cli.running import run_and_report
    from deradiff.sweep import Plan

    plan = Plan.of(
        model=EMBEDDED,
        anchor=EMBEDDED,
        prompts=testbed.DEMO_PROMPTS[:PROMPTS],
        seeds=range(SEEDS),
        lams=LAMS,
        anchor_beta=card_of(testbed.anchor_path())["beta"],
        steps=STEPS,
        guidances=[1.0],
        batch_size=PROMPTS * SEEDS,
    )
    run_and_report(plan, out, rewards=[OBJECTIVE, GUARD], objective=OBJECTIVE, guard=GUARD)
