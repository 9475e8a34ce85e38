"""``deradiff generate``: one prompt at one or more lams."""

from pathlib import Path
from typing import Annotated

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo


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
    from deradiff.errors import ConfigError
    from deradiff.io import encode_png, write_whole

    if out.suffix.lower() != ".png" or out.is_dir():
        raise ConfigError(f"--out must be a file that ends in .png, got {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} can't be written: {error}") from error
    import torch
    from PIL import Image

    from deradiff.cli.common import hush, own_guidance
    from deradiff.cli.parsing import parse_numbers
    from deradiff.realignment import realign
    from deradiff.runs.cells import Request
    from deradiff.runs.encoders import cached_text_encoders
    from deradiff.runs.models import call, load_pipeline, set_scheduler
    from deradiff.runs.recipe import Recipe
    from deradiff.sampling import noise_seed
    from deradiff.testbed import resolve_anchor, resolve_model

    recipe = Recipe(scheduler=scheduler, steps=steps, height=height, width=width, dtype=dtype, particles=particles)
    asked = Request(
        prompts=[prompt],
        seeds=[seed],
        lams=parse_numbers(lam),
        guidances=[own_guidance(model) if guidance is None else guidance],
    )
    hush()
    pipe = load_pipeline(resolve_model(model), device=device, dtype=dtype, offload=offload)
    set_scheduler(pipe, scheduler)
    images: list[Image.Image] = []
    with realign(pipe, resolve_anchor(anchor), 0.0, component=component) as handle, cached_text_encoders(pipe):
        for value in asked.lams:
            handle.lam = value
            handle.particles = particles if recipe.needs_particles(value) else 1  # elsewhere they correct nothing
            generator = torch.Generator().manual_seed(noise_seed(prompt, seed))
            images += call(pipe, recipe, asked.prompts, [generator], asked.guidances[0])
    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for index, image in enumerate(images):
        row.paste(image, (index * image.width, 0))
    write_whole(out, encode_png(row), ConfigError)
    echo(f"{out}: lam {', '.join(f'{value:g}' for value in asked.lams)}")
