"""``deradiff app``: a page on which people steer lam."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo

if TYPE_CHECKING:
    from deradiff.runs.recipe import Recipe
    from deradiff.runs.sampler import Sampler

SERVER = "The page"


def app(
    ctx: typer.Context,
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder that the page shows and grows; what isn't given is the run's.", callback=options.check_out
        ),
    ] = Path("runs/app"),
    model: options.Model = EMBEDDED,
    model_subfolder: options.Subfolder = None,
    model_revision: options.Revision = None,
    model_variant: options.Variant = None,
    anchor: options.AnchorOption = EMBEDDED,
    anchor_subfolder: options.AnchorSubfolder = None,
    anchor_revision: options.AnchorRevision = None,
    anchor_variant: options.AnchorVariant = None,
    anchor_weight_name: options.AnchorWeightName = None,
    another_anchor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ANCHOR",
            help="One more anchor with a slider of its own, to explore; may be given several times. Such a page has no "
            "run.",
            rich_help_panel=options.MODELS,
        ),
    ] = None,
    component: options.Component = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = 25,
    particles: options.Particles = 1,
    guidance: options.Guidance = None,
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
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; any but this machine's own needs a password.", rich_help_panel=SERVER),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Default: the first free one from 7860 on.", min=1, max=65535, rich_help_panel=SERVER),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose first line is the password of the user deradiff; or set DERADIFF_APP_PASSWORD.",
            rich_help_panel=SERVER,
        ),
    ] = None,
) -> None:
    """Open a page to explore lam by a slider, sweep, and choose by eye; Ctrl-C ends it."""
    from deradiff.cli.common import hush, own_guidance

    _check_installed()
    from deradiff.app import server
    from deradiff.app.engine import Engine
    from deradiff.app.page import build_page, serve_run
    from deradiff.cli.planning import open_run
    from deradiff.errors import ConfigError
    from deradiff.testbed import DEMO_PROMPTS

    password = server.read_password(password_file)
    server.check_access(host, password)
    opened = open_run(ctx, run)
    if another_anchor and opened.cluster is not None:
        raise ConfigError("--ray is for the sweeps of a page, and a page with --another-anchor has none; leave one out")
    hush()
    with (
        server.bind(host, port) as listening,
        _sampler(opened, _anchors(opened.recipe, another_anchor), device, offload) as sampler,
    ):
        served = serve_run(Engine(sampler), None if another_anchor else opened)
        scale = own_guidance(opened.recipe.model) if guidance is None else guidance
        page = server.web_app(build_page(served, DEMO_PROMPTS[:4], scale), host, password)
        address, number = listening.getsockname()[:2]
        where = f"http://{f'[{address}]' if ':' in address else address}:{number}"
        try:
            server.serve(page, listening, lambda: echo(f"the page is at {where}; Ctrl-C ends it"))
        finally:
            served.stop()


def _check_installed() -> None:
    """Check that the page's library is there.

    Raises:
        ConfigError: it isn't.
    """
    from importlib.util import find_spec

    from deradiff.errors import ConfigError

    if find_spec("gradio") is None:
        raise ConfigError("gradio is missing, which the page needs: pip install 'deradiff[app]'")


def _anchors(recipe: "Recipe", others: list[str] | None) -> dict[str, str] | None:
    """Several anchors by name; None where there is one."""
    from deradiff.errors import ConfigError
    from deradiff.testbed import resolve_anchor

    if not others:
        return None
    anchors = {"anchor": resolve_anchor(recipe.anchor)}
    for text in others:
        name, equals, place = text.partition("=")
        if not (name and equals and place) or name in anchors:
            raise ConfigError(f"--another-anchor {text!r}: expected NAME=ANCHOR, with a name that no other has")
        anchors[name] = resolve_anchor(place)
    return anchors


def _sampler(run: Any, anchors: dict[str, str] | None, device: str, offload: bool) -> "AbstractContextManager[Sampler]":
    """What draws: of the run, or of several anchors."""
    if anchors is None:
        return run.sampler()
    from deradiff.runs.models import load_pipeline
    from deradiff.runs.runner import sampling
    from deradiff.testbed import resolve_model

    recipe = run.recipe
    model = resolve_model(run.store.located(recipe.model))
    pipe = load_pipeline(model, location=recipe.model_location, device=device, dtype=recipe.dtype, offload=offload)
    return sampling(pipe, anchors, recipe, lam=dict.fromkeys(anchors, 0.0))
