"""``deradiff sweep``: every lam for every prompt, seed and guidance, into a run folder that grows."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, listed

CALLS, RUN = "Network function evaluations (NFE)", "The run"  # panels of the help


def sweep(
    ctx: typer.Context,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts: .txt, .csv, .tsv, .json, .jsonl, .parquet, or a folder of datasets or of parquet files.",
            rich_help_panel=options.WHAT,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Of --prompts; default: prompt, prompts, caption or text; a number in a .csv without a header.",
            rich_help_panel=options.WHAT,
        ),
    ] = None,
    delimiter: options.Delimiter = None,
    split: Annotated[
        str | None, typer.Option(help="Of a folder of several splits.", rich_help_panel=options.WHAT)
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt; may be given several times.", rich_help_panel=options.WHAT)
    ] = None,
    seeds: options.Seeds = "4",
    lams: Annotated[
        str | None,
        typer.Option(help="0,0.5,1 or start:stop:count; default: those of the run.", rich_help_panel=options.WHAT),
    ] = None,
    betas: Annotated[
        str | None,
        typer.Option(help="KL strengths to emulate instead of lams: 500,1000,5000.", rich_help_panel=options.WHAT),
    ] = None,
    anchor_beta: Annotated[
        float | None, typer.Option(help="The anchor's KL strength; default: its card's.", rich_help_panel=options.WHAT)
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            help="Guidance scale, or several: 3,5,7.5; default: the pipeline's, 1 for 'embedded'.",
            rich_help_panel=options.WHAT,
        ),
    ] = None,
    model: options.Model = EMBEDDED,
    model_subfolder: options.Subfolder = None,
    model_revision: options.Revision = None,
    model_variant: options.Variant = None,
    anchor: options.AnchorOption = EMBEDDED,
    anchor_subfolder: options.AnchorSubfolder = None,
    anchor_revision: options.AnchorRevision = None,
    anchor_variant: options.AnchorVariant = None,
    anchor_weight_name: options.AnchorWeightName = None,
    component: options.Component = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = 25,
    particles: options.Particles = 1,
    height: options.Height = None,
    width: options.Width = None,
    batch_size: options.BatchSize = 8,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    offload: options.Offload = False,
    ray: options.Ray = None,
    ray_workers: options.RayWorkers = None,
    gpus_per_worker: options.GpusPerWorker = None,
    storage: options.Storage = None,
    retry_quarantined: options.RetryQuarantined = False,
    ensemble: Annotated[
        Literal["auto", "toggle", "separate", "batched"],
        typer.Option(
            help="How the models are held: toggle, separate, batched; default: by the anchor.",
            rich_help_panel=CALLS,
        ),
    ] = "auto",
    policy: Annotated[
        Literal["exact", "reuse", "adaptive", "weights"],
        typer.Option(help="exact, or with fewer NFE: reuse, adaptive, weights.", rich_help_panel=CALLS),
    ] = "exact",
    refresh: Annotated[
        int | None,
        typer.Option(help="Of reuse: compute the anchor at every so many steps.", min=1, rich_help_panel=CALLS),
    ] = None,
    target_error: Annotated[
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
        typer.Option(help="Rewards that must hold, and what each may lose: hps,clip:-1%.", rich_help_panel=RUN),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder, which grows; what isn't given is the run's.",
            callback=options.check_out,
            rich_help_panel=RUN,
        ),
    ] = Path("runs/sweep"),
    shard: Annotated[
        str | None,
        typer.Option(help="Sample part K of N only, such as 1/4; others may run beside.", rich_help_panel=RUN),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, and sample nothing.", rich_help_panel=RUN)
    ] = False,
    list_cells: Annotated[
        bool, typer.Option("--list", help="Print the images asked for as JSON lines and stop.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Sample every prompt and seed at every lam, score the images, and write a report with the lam to take.

    On a folder that holds a run, only what is missing is sampled; without options, what was asked for earlier.
    """
    from deradiff.cli.parsing import parse_shard
    from deradiff.cli.planning import open_run, requests_given
    from deradiff.cli.running import list_images, print_cost, run_and_report

    part = None if shard is None else parse_shard(shard)
    run = open_run(ctx, out)
    requests = requests_given(ctx, run)
    if list_cells:
        list_images(run, requests, part)
    elif dry_run:
        print_cost(run, requests, part)
    else:
        run_and_report(run, requests, rewards=listed(rewards), objective=objective, guard=guard, shard=part)
