"""``deradiff sweep``: every lam for every prompt, seed and guidance, into a run folder that can be resumed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, listed

WHAT, CALLS, RUN = "What to sweep", "Network calls", "The run"  # panels of the help


def sweep(
    ctx: typer.Context,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts: .txt, .csv, .tsv, .jsonl, .parquet, or a folder of datasets or of parquet files.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Of --prompts; default: prompt, prompts, caption or text.", rich_help_panel=WHAT),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder of several splits.", rich_help_panel=WHAT)] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt; may be given several times.", rich_help_panel=WHAT)
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Images per prompt, guidance and lam: seeds 0, 1, ...", min=1, rich_help_panel=WHAT)
    ] = 4,
    lams: Annotated[
        str | None, typer.Option(help="0,0.5,1 or start:stop:count; default: 0:2:9.", rich_help_panel=WHAT)
    ] = None,
    betas: Annotated[
        str | None,
        typer.Option(help="KL strengths to emulate instead of lams: 500,1000,5000.", rich_help_panel=WHAT),
    ] = None,
    anchor_beta: Annotated[
        float | None, typer.Option(help="The anchor's KL strength; default: its card's.", rich_help_panel=WHAT)
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            help="Guidance scale, or several: 3,5,7.5; default: the pipeline's, 1 for 'embedded'.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    model: options.Model = EMBEDDED,
    anchor: options.AnchorOption = EMBEDDED,
    component: options.Component = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = 25,
    particles: options.Particles = 1,
    height: options.Height = None,
    width: options.Width = None,
    batch_size: options.BatchSize = 8,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    offload: options.Offload = False,
    mode: Annotated[
        Literal["exact", "reuse", "adaptive", "weights"],
        typer.Option(
            metavar="MODE", help="exact, or with fewer calls: reuse, adaptive, weights.", rich_help_panel=CALLS
        ),
    ] = "exact",
    refresh: Annotated[
        int | None,
        typer.Option(help="Of reuse: compute the anchor at every so many steps.", min=1, rich_help_panel=CALLS),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(help="Of adaptive: mean error of latents that spot checks aim at: 1%.", rich_help_panel=CALLS),
    ] = None,
    diagnostics: Annotated[
        bool,
        typer.Option(
            help="Record path KL, implicit reward, weights: both models run at every lam.", rich_help_panel=CALLS
        ),
    ] = True,
    rewards: Annotated[str, typer.Option(help="Rewards to score, separated by commas.", rich_help_panel=RUN)] = "",
    objective: Annotated[
        str | None, typer.Option(help="Reward to raise; default: the first of --rewards.", rich_help_panel=RUN)
    ] = None,
    guard: Annotated[
        str | None,
        typer.Option(help="Rewards that must hold, and what each may lose: hps:0,clip:-1%.", rich_help_panel=RUN),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Run folder; an interrupted run of the same plan goes on there.", rich_help_panel=RUN),
    ] = Path("runs/sweep"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; its plan is read there.", rich_help_panel=RUN)
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="Sample part K of N only, such as 1/4; others may run beside.", rich_help_panel=RUN),
    ] = None,
    list_cells: Annotated[
        bool, typer.Option("--list", help="Print the images to be made as JSON lines and stop.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Sample every prompt and seed at every lam, score the images, and write a report with the lam to take."""
    from deradiff.cli.parsing import parse_shard
    from deradiff.cli.planning import planned, resumed
    from deradiff.cli.running import list_images, run_and_report

    part = None if shard is None else parse_shard(shard)
    plan = resumed(ctx, out) if resume else planned(ctx)
    if list_cells:
        list_images(plan, part or (0, 1))
        return
    run_and_report(
        plan, out, rewards=listed(rewards), objective=objective, guard=guard, shard=part, device=device, offload=offload
    )
