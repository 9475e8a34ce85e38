"""``deradiff bake`` and ``extract-lora``: one ordinary LoRA or checkpoint for a chosen lam."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo, listed, push_folder

if TYPE_CHECKING:
    from deradiff.bake import BakeQuality
    from deradiff.runs.recipe import Recipe

BAKE, MEASURE = "The bake", "What it is measured on"  # panels of the help
_MEASURED = 16  # prompts at most: one image each by the reference, the realigned pipeline and the bake

Rank = Annotated[int | None, typer.Option(help="The most that a layer may have.", min=1, rich_help_panel=BAKE)]
Energy = Annotated[
    float | None,
    typer.Option(
        help="Share of each layer's squared norm to keep, such as 0.99, the default of full anchors.",
        rich_help_panel=BAKE,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder to write.", rich_help_panel=BAKE)]


def bake(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A run folder, or a pipeline: a folder, hub id or 'embedded'.")],
    lam: Annotated[list[float], typer.Option(help="Mixing weight; once for each anchor.", rich_help_panel=BAKE)],
    out: Out,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            help="Aligned model, for several once each; default: the run's, or the embedded one.", rich_help_panel=BAKE
        ),
    ] = None,
    format: Annotated[
        Literal["diffusers", "kohya", "peft", "checkpoint"],
        typer.Option(
            help="A LoRA for diffusers, for ComfyUI and A1111 (kohya) or for PEFT; or all weights of the denoiser.",
            rich_help_panel=BAKE,
        ),
    ] = "diffusers",
    rank: Rank = None,
    energy: Energy = None,
    distil: Annotated[
        str | None,
        typer.Option(
            help="Train the LoRA on realigned predictions for so long: 90s, 5min, 2h; default: the weights alone.",
            rich_help_panel=BAKE,
        ),
    ] = None,
    distil_rank: Annotated[int, typer.Option(help="Of a distilled LoRA.", min=1, rich_help_panel=BAKE)] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of the distillation.", rich_help_panel=BAKE)] = 2e-3,
    fold_guidance: Annotated[
        bool,
        typer.Option(
            "--fold-guidance",
            help="With --distil: learn the prediction guided at --guidance; sample the LoRA with guidance off.",
            rich_help_panel=BAKE,
        ),
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts, as sweep takes them: to measure on, and to distil on; default: the run's, or the embedded "
            "model's.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of --prompts.", rich_help_panel=MEASURE)] = None,
    delimiter: options.Delimiter = None,
    rewards: Annotated[
        str, typer.Option(help="Rewards to compare, separated by commas.", rich_help_panel=MEASURE)
    ] = "",
    component: options.Component = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = 25,
    guidance: options.Guidance = None,
    height: options.Height = None,
    width: options.Width = None,
    batch_size: options.BatchSize = 8,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    push_to_hub: options.PushToHub = None,
    private: options.Private = False,
) -> None:
    """Bake a chosen lam into one ordinary LoRA or checkpoint, which costs one network call a step.

    The weights bake interpolates weights; --distil trains the LoRA to predict what the realigned pipeline predicts, and
    is kept where held-out images show it to be nearer. --fold-guidance puts classifier-free guidance into the LoRA too.
    The error of either against the realigned pipeline is measured, printed, and shown in bake.html.
    """
    from deradiff.bake import Distillation
    from deradiff.bake import bake as write_bake
    from deradiff.cli.common import hush
    from deradiff.cli.parsing import parse_delimiter, parse_duration
    from deradiff.errors import ConfigError
    from deradiff.rewards import load_reward
    from deradiff.runs.prompts import read_prompts

    if fold_guidance and distil is None:
        raise ConfigError("--fold-guidance is learnt by distillation; give --distil TIME too, such as --distil 5min")
    recipe, run_prompts, guidance = _recipe(ctx, source, anchor, guidance)
    aligned, weight = _anchors(recipe, anchor, lam)
    texts = run_prompts if prompts is None else read_prompts(prompts, column, delimiter=parse_delimiter(delimiter))
    if not texts:
        raise ConfigError("no prompts: a bake is measured on some; give --prompts FILE")
    measured = texts[-_MEASURED:]
    training = [text for text in texts if text not in set(measured)] or texts
    seconds = None if distil is None else parse_duration(distil)
    distillation = None
    if seconds is not None:
        distillation = Distillation(
            seconds=seconds, rank=distil_rank, learning_rate=learning_rate, fold_guidance=fold_guidance
        )
    functions = {name: load_reward(name) for name in listed(rewards)}
    hush()
    options.prepare_push(push_to_hub, private=private)
    pipe = _load(recipe, device)
    with _bar(distillation is not None) as advance:
        quality = write_bake(
            pipe, aligned, weight, out, measured, format=format, component=recipe.component, rank=rank, energy=energy,
            distillation=distillation, training_prompts=training, recipe=recipe, guidance=guidance, rewards=functions,
            card=_card(recipe, anchor, lam), advance=advance,
        )  # fmt: skip
    _print(out, quality)
    push_folder(out, push_to_hub)


def extract_lora(
    model: Annotated[str, typer.Argument(help="The pipeline that the anchor was aligned from.")],
    anchor: Annotated[str, typer.Option(help="Full aligned checkpoint: a folder, file or hub id.")],
    out: Out,
    format: Annotated[
        Literal["diffusers", "kohya", "peft"], typer.Option(help="Layout of the LoRA.", rich_help_panel=BAKE)
    ] = "diffusers",
    rank: Rank = None,
    energy: Energy = None,
    component: options.Component = None,
    dtype: options.Dtype = "float32",
) -> None:
    """Make a LoRA of a full anchor by truncated singular value decomposition, and say what it leaves out."""
    from deradiff.bake import bake_weights, write_lora
    from deradiff.bake.files import check_folder
    from deradiff.cli.common import hush
    from deradiff.runs.recipe import Recipe
    from deradiff.testbed import resolve_anchor

    hush()
    aligned = resolve_anchor(anchor)
    check_folder(out, aligned)
    pipe = _load(Recipe(model=model, dtype=dtype), "cpu")
    update = bake_weights(pipe, aligned, 1.0, component=component, rank=rank, energy=energy)
    path = write_lora(pipe, update, out, format, card={"reference": model, "anchor": anchor, "error": update.error})
    worst = sorted(update.errors, key=update.errors.__getitem__, reverse=True)[:5]
    echo(
        f"{path}: {len(update.layers)} layers, {update.parameters:,} parameters; leaves out {update.error:.2%} of the "
        "change (Frobenius norm)"
    )
    for name in worst:
        echo(f"  {name}: rank {update.layers[name].rank}, leaves out {update.errors[name]:.2%}")
    if update.left_out:
        names = ", ".join(sorted(update.left_out)[:3])
        echo(f"  {len(update.left_out)} parameters that no LoRA holds changed too, such as {names}")


def _recipe(
    ctx: typer.Context, source: str, anchor: list[str] | None, guidance: float | None
) -> "tuple[Recipe, list[str], float | None]":
    """What all images share, prompts and guidance: those of a run or of a model, but for the options that are given."""
    from deradiff import testbed
    from deradiff.cli.common import own_guidance
    from deradiff.cli.planning import recipe_options
    from deradiff.errors import ConfigError
    from deradiff.runs.legacy import is_legacy, open_run_folder
    from deradiff.runs.recipe import Recipe
    from deradiff.runs.store import Store

    settings = {name: value for name, value in recipe_options(ctx).items() if name != "anchor"}
    folder = Path(source)
    if Store.exists(folder) or is_legacy(folder):
        store = open_run_folder(folder)
        places = {name: store.located(getattr(store.recipe, name)) for name in ("model", "anchor")}
        _check_unchanged(source, store.recipe, store.recipe.model_copy(update=places), anchor)
        requests = store.requests()
        texts = list(dict.fromkeys(text for request in requests for text in request.prompts))
        scales = list(dict.fromkeys(scale for request in requests for scale in request.guidances))
        if guidance is None and len(scales) > 1:
            raise ConfigError(f"{source} has the guidances {', '.join(map(str, scales))}; give --guidance with one")
        values: dict[str, Any] = {**dict(store.recipe), **places, **settings}
        return Recipe(**values), texts, scales[0] if guidance is None and scales else guidance
    values = {**settings, "model": source, "anchor": anchor[0] if anchor else EMBEDDED}
    texts = testbed.prompts(256, drop=0.3) if testbed.is_embedded(source) else []
    return Recipe(**values), texts, own_guidance(source) if guidance is None else guidance


def _check_unchanged(source: str, written: "Recipe", located: "Recipe", anchor: list[str] | None) -> None:
    """Check that a run's models still are what its images, from which lam was chosen, were sampled with.

    Raises:
        RunFolderError: names the one that has other weights now.
    """
    from deradiff.errors import RunFolderError
    from deradiff.runs.fingerprint import with_hashes

    now = with_hashes(located)
    for part in ("model", *(() if anchor else ("anchor",))):
        before, after = getattr(written, f"{part}_hash"), getattr(now, f"{part}_hash")
        if None not in (before, after) and before != after:
            raise RunFolderError(
                f"{source} was sampled with other weights of its {part} {getattr(located, part)}, so its lam means "
                "nothing for these: restore them, or name the pipeline and --anchor instead of the run"
            )


def _anchors(recipe: "Recipe", anchor: list[str] | None, lam: list[float]) -> tuple[Any, Any]:
    """Anchors and lams as ``realign`` takes them."""
    from deradiff.cli.planning import check_anchor_given
    from deradiff.errors import ConfigError
    from deradiff.testbed import resolve_anchor

    anchors = [resolve_anchor(name) for name in anchor or [recipe.anchor]]
    if len(anchors) != len(lam):
        raise ConfigError(f"got {len(anchors)} anchors and {len(lam)} lams; give --lam once for each --anchor")
    check_anchor_given(recipe.model, anchor[0] if anchor else recipe.anchor)
    if len(anchors) == 1:
        return anchors[0], lam[0]
    names = [str(number) for number in range(1, len(anchors) + 1)]
    return dict(zip(names, anchors, strict=True)), dict(zip(names, lam, strict=True))


def _load(recipe: "Recipe", device: str) -> Any:
    from deradiff.runs.models import load_pipeline, set_scheduler
    from deradiff.testbed import resolve_model

    pipe = load_pipeline(resolve_model(recipe.model), location=recipe.model_location, device=device, dtype=recipe.dtype)
    set_scheduler(pipe, recipe.scheduler)
    return pipe


def _card(recipe: "Recipe", anchor: list[str] | None, lam: list[float]) -> dict[str, Any]:
    """What the bake says of its models; the beta that one lam between 0 and the anchor's emulates."""
    from deradiff.anchor.source import card_of
    from deradiff.testbed import DEFAULT_ANCHOR, resolve_anchor

    names = anchor or [recipe.anchor]
    shown = [f"{EMBEDDED}:{DEFAULT_ANCHOR}" if name == EMBEDDED else name for name in names]
    beta = None if anchor else recipe.anchor_beta
    if beta is None:
        beta = card_of(resolve_anchor(names[0]), None if anchor else recipe.anchor_location).get("beta")
    entries: dict[str, Any] = {"reference": recipe.model, "anchor": ", ".join(shown)}
    if isinstance(beta, int | float) and len(lam) == 1 and lam[0] > 0:
        entries["beta"] = beta / lam[0]
    return entries


def _bar(shown: bool) -> Any:
    """A progress bar of the distillation, as a context manager that gives what advances it."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    @contextmanager
    def running() -> Any:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True, quiet=not shown)) as bar:
            task = bar.add_task("distilling", total=1.0)

            def advance(share: float, loss: float) -> None:
                bar.update(task, completed=share, description=f"distilling, loss {loss:.4g}")

            yield advance

    return running()


def _print(out: Path, quality: "BakeQuality") -> None:
    from deradiff.bake.api import PAGE

    for sentence in (*quality.remarks, *quality.sentences()):
        echo(sentence)
    echo(f"{out}: the bake; pairs of images in {(out / PAGE).resolve()}")
