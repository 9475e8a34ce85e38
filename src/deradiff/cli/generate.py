"""``deradiff generate``: one prompt at one or more lams."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo

if TYPE_CHECKING:
    from PIL.Image import Image

    from deradiff.runs.cells import Request
    from deradiff.runs.recipe import Recipe

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # as Pillow calls them
_QUALITY = 95  # of lossy formats


def generate(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    lam: Annotated[str, typer.Option(help="Mixing weight, or several: 0,0.5,1 or start:stop:count.")] = "0.5",
    seed: Annotated[int, typer.Option(help="Seed; all lams share its noise.")] = 0,
    out: Annotated[
        Path, typer.Option(help="File to write: .png, .jpg, .jpeg or .webp; with several lams, a row of images.")
    ] = Path("realigned.png"),
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
    guidance: options.Guidance = None,
    height: options.Height = None,
    width: options.Width = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    offload: options.Offload = False,
) -> None:
    """Draw a prompt with the realigned pipeline."""
    from deradiff.cli.common import hush, own_guidance
    from deradiff.cli.parsing import parse_numbers
    from deradiff.cli.planning import check_anchor_given, recipe_options
    from deradiff.errors import ConfigError
    from deradiff.runs.cells import Request
    from deradiff.runs.models import load_pipeline
    from deradiff.runs.recipe import Recipe
    from deradiff.testbed import resolve_model
    from deradiff.writing import replacing

    if out.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out must be a file that ends in {', '.join(_FORMATS)}, got {out}")
    options: dict[str, Any] = {"model": EMBEDDED, "anchor": EMBEDDED, **recipe_options(ctx)}
    recipe = Recipe(**options)
    check_anchor_given(recipe.model, recipe.anchor)
    request = Request(
        prompts=[prompt],
        seeds=[seed],
        lams=parse_numbers(lam),
        guidances=[own_guidance(model) if guidance is None else guidance],
    )
    hush()
    with replacing(out, ConfigError) as part:  # before anything is sampled: it can be written
        if out.is_dir():
            raise ConfigError(f"--out {out} is a folder; give a file in it")
        pipe = load_pipeline(
            resolve_model(model), location=recipe.model_location, device=device, dtype=dtype, offload=offload
        )
        row = _join(_draw(pipe, recipe, request))
        row.save(part, format=_FORMATS[out.suffix.lower()], quality=_QUALITY)
    echo(f"{out}: lam {', '.join(f'{value:g}' for value in request.lams)}")


def _draw(pipe: Any, recipe: "Recipe", request: "Request") -> "list[Image]":
    """The images of a prompt and seed, one a lam."""
    import torch

    from deradiff.cli.common import progress
    from deradiff.realignment import realign
    from deradiff.runs.encoders import cached_text_encoders
    from deradiff.runs.models import call, set_scheduler
    from deradiff.sampling import noise_seed
    from deradiff.testbed import resolve_anchor

    set_scheduler(pipe, recipe.scheduler)
    anchor, images = resolve_anchor(recipe.anchor), list[Any]()
    with (
        realign(pipe, anchor, 0.0, component=recipe.component, **dict(recipe.anchor_location)) as handle,
        cached_text_encoders(pipe),
        progress("sampling", request.count) as advance,
    ):
        for lam in request.lams:
            handle.lam = lam
            handle.particles = recipe.particles if recipe.needs_particles(lam) else 1  # elsewhere they correct nothing
            generator = torch.Generator().manual_seed(noise_seed(request.prompts[0], request.seeds[0]))
            images += call(pipe, recipe, request.prompts, [generator], request.guidances[0])
            advance(1)
    return images


def _join(images: "list[Image]") -> "Image":
    """Images in a row."""
    from PIL import Image

    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for index, image in enumerate(images):
        row.paste(image, (index * image.width, 0))
    return row
