"""``deradiff generate``: one prompt at one or more lams."""

from pathlib import Path
from typing import Annotated

import typer

from deradiff.cli.common import (
    EMBEDDED,
    AnchorOption,
    Component,
    Device,
    Guidance,
    Half,
    Height,
    Model,
    Scheduler,
    Steps,
    Width,
)


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    lam: Annotated[str, typer.Option(help="Mixing weight, or several: 0,0.5,1 or start:stop:count.")] = "0.5",
    seed: Annotated[int, typer.Option(help="Seed; all lams share its noise.")] = 0,
    model: Model = EMBEDDED,
    anchor: AnchorOption = EMBEDDED,
    component: Component = None,
    scheduler: Scheduler = None,
    steps: Steps = 25,
    guidance: Guidance = None,
    height: Height = None,
    width: Width = None,
    out: Annotated[Path, typer.Option(help="PNG to write; with several lams, a row of images.")] = Path(
        "realigned.png"
    ),
    device: Device = "cpu",
    half: Half = False,
) -> None:
    """Draw a prompt with the realigned pipeline."""
    from deradiff.errors import PlanError

    if out.suffix.lower() != ".png" or out.is_dir():
        raise PlanError(f"--out must be a file that ends in .png, got {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"--out {out} can't be written: {error}") from error
    from PIL import Image

    from deradiff.cli.common import anchor_name, guidance_for, hush, model_path
    from deradiff.realignment import realign
    from deradiff.sweep import Plan
    from deradiff.sweep.given import parse_lams
    from deradiff.sweep.models import call, load_pipeline, set_scheduler

    lams = parse_lams(lam)
    plan = Plan.of(
        model=model,
        anchor=anchor,
        prompts=[prompt],
        seeds=[seed],
        lams=lams,
        component=component,
        scheduler=scheduler,
        steps=steps,
        guidance=guidance_for(model, guidance),
        height=height,
        width=width,
    )
    hush()
    pipe = load_pipeline(model_path(model), device=device, half=half)
    set_scheduler(pipe, scheduler)
    images: list[Image.Image] = []
    with realign(pipe, anchor_name(anchor), lams[0], component=component) as handle:
        for value in plan.lams:
            handle.lam = value
            images += call(pipe, plan, plan.prompts, plan.seeds)
    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for place, image in enumerate(images):
        row.paste(image, (place * image.width, 0))
    row.save(out)
    typer.echo(f"{out}: lam {', '.join(f'{value:g}' for value in plan.lams)}")
