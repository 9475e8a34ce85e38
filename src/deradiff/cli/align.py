"""``deradiff align``: train an anchor by Diffusion-DPO, on given preferences or on the reference's own samples."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo, listed, push_folder
from deradiff.cli.config import Config

if TYPE_CHECKING:
    from deradiff.align import Pairs, Settings
    from deradiff.rewards import Reward

DATA, OWN, TRAINING, RUN = "Preferences", "Preferences of a reward", "Training", "The run"  # panels of the help

_OWN_PROMPTS = 192  # of the embedded model; a LoRA trained on a quarter of them doesn't carry over to other captions


def align(
    ctx: typer.Context,
    beta: Annotated[float, typer.Option(help="KL strength, in the units of --convention.", rich_help_panel=TRAINING)],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the anchor; a stopped training goes on.", callback=options.check_out, rich_help_panel=RUN
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Table or folder: prompt, chosen, rejected[, probability], or Pick-a-Pic's.", rich_help_panel=DATA
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder of several splits.", rich_help_panel=DATA)] = None,
    delimiter: options.Delimiter = None,
    allow_outside: Annotated[
        bool,
        typer.Option("--allow-outside", help="Read images outside of the data's folder too.", rich_help_panel=DATA),
    ] = False,
    self_label: Annotated[
        str | None,
        typer.Option(help="Instead of --data: a reward that judges the model's own samples.", rich_help_panel=OWN),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="To sample; default for 'embedded': some of its captions.", rich_help_panel=OWN),
    ] = None,
    images: Annotated[int, typer.Option(help="Samples a prompt.", min=2, rich_help_panel=OWN)] = 8,
    sampling_steps: Annotated[int, typer.Option(help="Of each sample.", min=1, rich_help_panel=OWN)] = 20,
    sampling_guidance: Annotated[
        float | None, typer.Option(help="Default: the pipeline's, 1 for 'embedded'.", min=0, rich_help_panel=OWN)
    ] = None,
    ray: options.Ray = None,
    ray_workers: options.RayWorkers = None,
    gpus_per_worker: options.GpusPerWorker = None,
    model: options.Model = EMBEDDED,
    model_subfolder: options.Subfolder = None,
    model_revision: options.Revision = None,
    model_variant: options.Variant = None,
    component: options.Component = None,
    convention: Annotated[
        str, typer.Option(help="Of beta: kl, sdxl-script, sd15-script (docs/align.md).", rich_help_panel=TRAINING)
    ] = "kl",
    loss: Annotated[Literal["dpo", "ipo"], typer.Option(rich_help_panel=TRAINING)] = "dpo",
    label_smoothing: Annotated[
        float, typer.Option(help="Share of labels believed wrong.", rich_help_panel=TRAINING)
    ] = 0.0,
    steps: Annotated[int, typer.Option(help="Of the optimizer.", rich_help_panel=TRAINING)] = 1000,
    train_batch_size: Annotated[int, typer.Option(help="A step, over all processes.", rich_help_panel=TRAINING)] = 16,
    draws: Annotated[
        int, typer.Option(help="Of time and noise a pair, averaged inside the loss.", rich_help_panel=TRAINING)
    ] = 1,
    gradient_accumulation_steps: Annotated[
        int, typer.Option(help="Parts in which a step's pairs are run.", rich_help_panel=TRAINING)
    ] = 1,
    learning_rate: Annotated[float, typer.Option(rich_help_panel=TRAINING)] = 1e-4,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights, not a LoRA.", rich_help_panel=TRAINING)
    ] = False,
    rank: Annotated[int, typer.Option(help="Of the LoRA.", rich_help_panel=TRAINING)] = 16,
    target_modules: Annotated[
        str, typer.Option(help="Layers that the LoRA changes, separated by commas.", rich_help_panel=TRAINING)
    ] = "to_q,to_k,to_v,to_out.0",
    format: Annotated[
        Literal["diffusers", "kohya"],
        typer.Option(help="Of the LoRA: for diffusers, or for ComfyUI and A1111 (kohya).", rich_help_panel=RUN),
    ] = "diffusers",
    ema: Annotated[
        float | None, typer.Option(help="Decay of an average of the weights to write.", rich_help_panel=TRAINING)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of training and of own samples.", rich_help_panel=TRAINING)] = 0,
    guidance: Annotated[
        float, typer.Option(help="Guidance scale given to guidance-distilled models (FLUX).", rich_help_panel=TRAINING)
    ] = 1.0,
    height: options.Height = None,
    width: options.Width = None,
    mixed_precision: Annotated[
        Literal["no", "fp16", "bf16"], typer.Option(help="Mixed precision.", rich_help_panel=options.MACHINE)
    ] = "no",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations.", rich_help_panel=options.MACHINE)
    ] = False,
    dtype: options.Dtype = "float32",
    report_to: Annotated[
        str | None, typer.Option(help="tensorboard or wandb, if installed.", rich_help_panel=RUN)
    ] = None,
    checkpointing_steps: Annotated[
        int, typer.Option(help="Steps between checkpoints.", min=1, rich_help_panel=RUN)
    ] = 100,
    push_to_hub: options.PushToHub = None,
    private: options.Private = False,
    config: Config = None,
) -> None:
    """Train an anchor: a LoRA (or, with --full, a checkpoint) that diffusers loads and realign, sweep and report read.

    Several GPUs or processes: accelerate launch --num_processes N -m deradiff align ...
    """
    from deradiff.align.processes import join_processes, launcher_note
    from deradiff.align.trainer import check_training
    from deradiff.anchor.location import Location
    from deradiff.cli.common import hush, own_guidance
    from deradiff.cli.parsing import parse_delimiter
    from deradiff.cli.planning import cluster_given
    from deradiff.errors import public_url
    from deradiff.runs.models import load_pipeline
    from deradiff.testbed import resolve_model

    hush()
    _check_source(ctx)
    cluster = cluster_given(ctx.params)
    settings = training_settings(ctx.params)
    between = parse_delimiter(delimiter)
    judge = None if self_label is None else _judge(self_label, model, prompts, between)
    state = join_processes()
    if note := launcher_note():
        echo(f"Note: {note}", err=True)
    quiet = not state.is_main_process
    preferences = None if data is None else _read(data, split, between, allow_outside=allow_outside, quiet=quiet)
    location = Location(subfolder=model_subfolder, revision=model_revision, variant=model_variant)
    pipe = load_pipeline(resolve_model(model), location=location, device=str(state.device), dtype=dtype)
    reference = f"{model} ({location})" if str(location) else model
    card = {"reference": reference, "reward": self_label and public_url(self_label)}
    check_training(pipe, out, settings, card=card, tracker=report_to, format=format)
    if state.is_main_process:
        options.prepare_push(push_to_hub, private=private)
    if judge is not None:
        guided = own_guidance(model) if sampling_guidance is None else sampling_guidance
        with state.main_process_first():
            preferences = _own(
                pipe, *judge, out / "pairs", name=str(self_label), images=images, seed=seed, steps=sampling_steps,
                guidance=guided, size=None if height is None or width is None else (height, width),
                sampler=None if cluster is None else cluster.prompt_sampler(model, location, dtype),
            )  # fmt: skip
    assert preferences is not None
    _train(pipe, preferences, out, settings, report_to, checkpointing_steps, card, format)
    if state.is_main_process:
        lies = "".join(f" --{name} {value}" for name, value in location if value is not None)
        echo(f"anchor in {out}: try deradiff sweep --model {model}{lies} --anchor {out}")
        push_folder(out, push_to_hub)


def training_settings(params: Mapping[str, Any]) -> "Settings":
    """The settings of a training from the options of align.

    Raises:
        AlignError: names the one that can't be used.
    """
    from deradiff.align import Settings

    names = (
        "beta", "convention", "loss", "label_smoothing", "steps", "train_batch_size", "draws",
        "gradient_accumulation_steps", "learning_rate", "full", "rank", "ema", "seed", "component", "height", "width",
        "guidance", "mixed_precision", "gradient_checkpointing",
    )  # fmt: skip
    values = {name: params[name] for name in names}
    return Settings(**values, target_modules=tuple(listed(params["target_modules"])))


def _read(data: Path, split: str | None, delimiter: str | None, *, allow_outside: bool, quiet: bool) -> "Pairs":
    from deradiff.align import read_pairs

    pairs = read_pairs(data, split, delimiter=delimiter, allow_outside=allow_outside)
    if quiet:
        return pairs
    echo(f"{len(pairs.pairs):,} pairs in {data}", err=True)
    for reason, count in pairs.skipped.items():
        example = f", such as {pairs.examples[reason]}" if reason in pairs.examples else ""
        echo(f"  skipped {count:,}: {reason}{example}", err=True)
    return pairs


def _judge(reward: str, model: str, prompts: Path | None, delimiter: str | None) -> tuple[list[str], "Reward"]:
    """What is to be sampled, and what judges it."""
    from deradiff import testbed
    from deradiff.errors import AlignError
    from deradiff.rewards import check_prompts, load_reward
    from deradiff.runs.prompts import read_prompts

    if prompts is None and model != EMBEDDED:
        raise AlignError(f"--self-label needs --prompts, what to sample {model} with")
    texts = (
        testbed.prompts(_OWN_PROMPTS, seed=0, drop=1.0)
        if prompts is None
        else read_prompts(prompts, delimiter=delimiter)
    )
    function = load_reward(reward)
    check_prompts(reward, function, texts)
    return texts, function


def _check_source(ctx: typer.Context) -> None:
    """Preferences, or a reward that makes them; an option of the other source would be ignored.

    Raises:
        AlignError: both, none, or an option that goes with the other.
    """
    from deradiff.errors import AlignError

    data, reward, guidance = (ctx.params[name] for name in ("data", "self_label", "sampling_guidance"))
    if (data is None) == (reward is None):
        raise AlignError("give either --data, a table of preferences, or --self-label, a reward that makes them")
    if guidance is not None and not isfinite(guidance):
        raise AlignError(f"--sampling-guidance is {guidance}; expected a number of 0 or more")
    if data is None:
        other, names = "--data", ["split", "allow_outside"]
    else:
        own = ["prompts", "images", "sampling_steps", "sampling_guidance"]
        other, names = "--self-label", [*own, "ray", "ray_workers", "gpus_per_worker"]
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise AlignError(f"--{name.replace('_', '-')} goes with {other} alone; leave it out")


def _own(pipe: Any, prompts: list[str], reward: "Reward", folder: Path, *, images: int, **settings: Any) -> "Pairs":
    from deradiff.align.self_label import self_label
    from deradiff.cli.common import progress

    with progress("own samples", images * len(prompts)) as advance:
        return self_label(pipe, prompts, reward, folder, images=images, advance=advance, **settings)


def _train(
    pipe: Any,
    pairs: "Pairs",
    out: Path,
    settings: Any,
    tracker: str | None,
    save_every: int,
    card: dict[str, Any],
    format: Any,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from deradiff.align import Step, align
    from deradiff.align.processes import join_processes

    console = Console(stderr=True, quiet=not join_processes().is_main_process)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task, loss = bar.add_task("making ready", total=None), [0.0]

        def advance(step: Step) -> None:
            loss[0] += 0.05 * (step.loss - loss[0]) if step.step > 1 else step.loss - loss[0]
            bar.update(task, completed=step.step, total=settings.steps, description=f"loss {loss[0]:.4f}")

        align(
            pipe, pairs, out, settings, card=card, tracker=tracker, save_every=save_every, format=format,
            advance=advance, cached=lambda count: bar.advance(task, count),
        )  # fmt: skip
