"""``deradiff search``: find lam with few images."""

from pathlib import Path
from typing import Annotated

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo, listed

QUESTION = "The question"  # a panel of the help


def search(
    ctx: typer.Context,
    objective: Annotated[str, typer.Option(help="Reward to raise; several: a,b.", rich_help_panel=QUESTION)],
    guard: Annotated[
        str | None,
        typer.Option(
            help="Rewards that must be shown to hold, and what each may lose: hps,clip:-1%.", rich_help_panel=QUESTION
        ),
    ] = None,
    kl_budget: Annotated[
        float | None, typer.Option(help="Largest mean path KL to the reference, in nats.", rich_help_panel=QUESTION)
    ] = None,
    risk: Annotated[
        float,
        typer.Option(help="Chance accepted that a guard's true loss exceeds its margin.", rich_help_panel=QUESTION),
    ] = 0.05,
    rewards: Annotated[
        str, typer.Option(help="More rewards to score, which the hacking alarm watches.", rich_help_panel=QUESTION)
    ] = "",
    max_lam: Annotated[float, typer.Option(help="Largest lam to look at.", rich_help_panel=QUESTION)] = 1.0,
    interval_width: Annotated[
        float,
        typer.Option(
            help="Stop where the interval that all images would choose lam in is no wider.", rich_help_panel=QUESTION
        ),
    ] = 0.1,
    max_images: Annotated[
        int | None, typer.Option(help="Stop before more images than this.", rich_help_panel=QUESTION)
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts, as sweep takes them.", rich_help_panel=options.WHAT)
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of --prompts.", rich_help_panel=options.WHAT)] = None,
    delimiter: options.Delimiter = None,
    split: Annotated[
        str | None, typer.Option(help="Of a folder of several splits.", rich_help_panel=options.WHAT)
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt; may be given several times.", rich_help_panel=options.WHAT)
    ] = None,
    seeds: options.Seeds = "4",
    anchor_beta: Annotated[
        float | None, typer.Option(help="The anchor's KL strength; default: its card's.", rich_help_panel=options.WHAT)
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(help="Guidance scale; default: the pipeline's, 1 for 'embedded'.", rich_help_panel=options.WHAT),
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
    out: Annotated[
        Path,
        typer.Option(
            help="Run folder; the same command goes on there, and what a sweep left counts.",
            callback=options.check_out,
        ),
    ] = Path("runs/search"),
) -> None:
    """Find the lam to take with as few images as it can: three lams first, then where they decide most."""
    from deradiff.cli.common import hush
    from deradiff.cli.parsing import parse_criteria, private_urls
    from deradiff.cli.planning import open_run, search_axes
    from deradiff.cli.recommend import print_search
    from deradiff.cli.running import warn_of_few_prompts
    from deradiff.search.search_run import search_run
    from deradiff.search.settings import Settings

    hush()
    criteria = parse_criteria(objective, guard, kl_budget, risk)
    settings = Settings(criteria=criteria, max_lam=max_lam, interval_width=interval_width, max_images=max_images)
    run = open_run(ctx, out)
    axes = search_axes(ctx, run)
    names = list(dict.fromkeys([*listed(rewards), *private_urls(objective, guard)]))
    warn_of_few_prompts(criteria, len(axes[0]))
    result = search_run(run, settings, axes[0], axes[1], guidance=axes[2], rewards=names, device=device, report=echo)
    echo(f"stopped: {result.stopped}; all is in {out}")
    print_search(result, out)
