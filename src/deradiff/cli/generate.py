"""``deradiff generate``: one prompt at one or more lams."""

from pathlib import Path
from typing import Annotated

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    lam: Annotated[str, typer.Option(help="Mixing weight, or several: 0,0.5,1 or start:stop:count.")] = "0.5",
    seed: Annotated[int, typer.Option(help="Seed; all lams share its noise.")] = 0,
    out: Annotated[Path, typer.Option(help="PNG to write; with several lams, a row of images.")] = Path(
        "realigned.png"
    ),
    model: options.Model = EMBEDDED,
    anchor: options.AnchorOption = EMBEDDED,
    component: options.Component = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = 25,
    particles: options.Particles = 1,
    guidance: options.Guidance = None,
    height: options.Height = None,
    width: options.Width = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    offload: options.Offload = False,
) -> None:
    """Draw a prompt with the realigned pipeline."""
    from deradiff.errors import PlanError

    if out.suffix.lower() != ".png" or out.is_dir():
        raise PlanError(f"--out must be a file that ends in .png, got {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"--out {out} can't be written: {error}") from error
    import torch
    from PIL import Image

    from deradiff.cli.common import anchor_name, hush, model_path, own_guidance
    from deradiff.cli.parsing import parse_numbers
    from deradiff.realignment import realign
    from deradiff.sampling import noise_seed
    from deradiff.sweep import Plan
    from deradiff.sweep.encode import encoding_once
    from deradiff.sweep.models import call, load_pipeline, set_scheduler

    plan = Plan.of(
        model=model,
        anchor=anchor,
        prompts=[prompt],
        seeds=[seed],
        lams=parse_numbers(lam),
        guidances=[own_guidance(model) if guidance is None else guidance],
        component=component,
        scheduler=scheduler,
        steps=steps,
        height=height,
        width=width,
        dtype=dtype,
        particles=particles,
    )
    hush()
    pipe = load_pipeline(model_path(model), device=device, dtype=dtype, offload=offload)
    set_scheduler(pipe, scheduler)
    images: list[Image.Image] = []
    with realign(pipe, anchor_name(anchor), 0.0, component=component) as handle, encoding_once(pipe):
        for value in plan.lams:
            handle.lam = value
            handle.particles = particles if 0 < value < 1 else 1  # elsewhere they correct nothing
            generator = torch.Generator().manual_seed(noise_seed(prompt, seed))
            images += call(pipe, plan, plan.prompts, [generator], 1, plan.guidances[0])
    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for place, image in enumerate(images):
        row.paste(image, (place * image.width, 0))
    row.save(out)
    typer.echo(f"{out}: lam {', '.join(f'{value:g}' for value in plan.lams)}")
