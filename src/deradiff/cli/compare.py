"""``deradiff compare``: an anchor's lam against models aligned from scratch, on the same prompts, seeds and noise."""

import os
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo, listed
from deradiff.cli.config import Config

if TYPE_CHECKING:
    from deradiff.anchor.location import Location
    from deradiff.compare import Aligned

WHAT = "What to compare"


def compare(
    rewards: Annotated[
        str,
        typer.Option(
            help="All rewards to tell of, separated by commas; the first gives the headline.", rich_help_panel=WHAT
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts: .txt, .csv, .tsv, .json, .jsonl, .parquet, or a folder.", rich_help_panel=WHAT),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt; may be given several times.", rich_help_panel=WHAT)
    ] = None,
    delimiter: options.Delimiter = None,
    seeds: options.Seeds = "4",
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            help="Aligned model whose lam is judged; may be given several times; default: the embedded one.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    retrained: Annotated[
        list[str] | None,
        typer.Option(
            help="Aligned model, or a pattern such as 'runs/align-*' or 'embedded:*'; may be given several times. "
            "Give several betas, and two training seeds at one or more; default: embedded:*.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    optimum: Annotated[
        int,
        typer.Option(
            help="Further samples of the reference a prompt, from which the optimum of the first reward is weighed; "
            "0 for none. Needs models aligned to that reward with beta in its units (kl).",
            min=0,
            rich_help_panel=WHAT,
        ),
    ] = 0,
    model: options.Model = EMBEDDED,
    model_subfolder: options.Subfolder = None,
    model_revision: options.Revision = None,
    model_variant: options.Variant = None,
    anchor_subfolder: options.AnchorSubfolder = None,
    anchor_variant: options.AnchorVariant = None,
    anchor_weight_name: options.AnchorWeightName = None,
    component: options.Component = None,
    schedulers: Annotated[
        str | None,
        typer.Option(
            help="diffusers scheduler classes, separated by commas; default: the pipeline's own.",
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    steps: options.Steps = 25,
    guidance: options.Guidance = None,
    height: options.Height = None,
    width: options.Width = None,
    batch_size: options.BatchSize = 8,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    offload: options.Offload = False,
    out: Annotated[
        Path, typer.Option(help="Folder; an interrupted comparison goes on there.", callback=options.check_out)
    ] = Path("runs/compare"),
    config: Config = None,
) -> None:
    """Measure how well lam emulates models aligned from scratch, and write a page of it."""
    from deradiff.cli.common import hush, own_guidance, progress
    from deradiff.cli.compared import percent, show
    from deradiff.cli.parsing import parse_delimiter, parse_seeds
    from deradiff.cli.planning import check_anchor_given
    from deradiff.compare import Comparison
    from deradiff.compare import compare as run_comparison
    from deradiff.errors import ConfigError
    from deradiff.rewards import check_prompts, load_reward
    from deradiff.runs.models import load_pipeline, with_stored_dtype
    from deradiff.runs.prompts import read_prompts
    from deradiff.runs.recipe import Recipe
    from deradiff.testbed import resolve_anchor, resolve_model

    hush()
    names = listed(rewards)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"rewards are {rewards!r}; give names, or module:function, separated by commas, each once")
    for option, given in (("--anchor", anchor), ("--retrained", retrained)):
        check_anchor_given(model, EMBEDDED if given is None else "", option)
    recipe = Recipe(
        model=model, model_subfolder=model_subfolder, model_revision=model_revision, model_variant=model_variant,
        anchor_subfolder=anchor_subfolder, anchor_variant=anchor_variant, anchor_weight_name=anchor_weight_name,
        component=component, steps=steps, height=height, width=width, dtype=dtype, batch_size=batch_size,
    )  # fmt: skip
    recipe = with_stored_dtype(recipe)
    scorers = {name: load_reward(name) for name in names}  # a mistake is an error before models are loaded
    comparison = Comparison.from_models(
        _aligned(anchor or [EMBEDDED], recipe.anchor_location),
        _aligned(retrained or [f"{EMBEDDED}:*"], recipe.anchor_location),
        listed(schedulers) if schedulers else [None],
        optimum=optimum,
        prompts=[*(read_prompts(prompts, delimiter=parse_delimiter(delimiter)) if prompts else []), *(prompt or [])],
        seeds=parse_seeds(seeds),
        guidance=own_guidance(model) if guidance is None else guidance,
        **recipe.model_dump(exclude={"anchor", "anchor_beta", "scheduler", "diagnostics"}),
    )
    for name, reward in scorers.items():
        check_prompts(name, reward, comparison.request.prompts)
    pipe = load_pipeline(
        resolve_model(model), location=recipe.model_location, device=device, dtype=recipe.dtype, offload=offload
    )
    with progress("sampling", sum(arm.request.count for arm in comparison.arms())) as advance:
        tables = run_comparison(out, comparison, pipe, names, resolve_anchor, advance)
    for table in tables:
        show(table)
    echo(f"\npage: {(out / 'compare.html').resolve()}")
    for name, value in tables[0].headline.items():
        echo(f"{name}: {percent(value)}")


def _aligned(texts: list[str], location: "Location") -> "list[Aligned]":
    from deradiff.compare import Aligned
    from deradiff.errors import AnchorError
    from deradiff.testbed import resolve_anchor

    aligned = list[Aligned]()
    for text in texts:
        for name in _matching(text):
            try:
                aligned.append(Aligned.read(name, resolve_anchor(name), location))
            except AnchorError as error:
                if name == text:
                    raise
                raise AnchorError(f"{error} (matched by {text!r}: narrow that, or move it away)") from error
    return aligned


def _matching(text: str) -> list[str]:
    """The models that a name or pattern names."""
    from deradiff import testbed
    from deradiff.errors import ConfigError

    if not any(mark in text for mark in "*?[") or os.path.exists(text):
        return [text]
    if text.startswith(f"{EMBEDDED}:"):
        names = [name for name in (f"{EMBEDDED}:{anchor}" for anchor in testbed.anchor_names()) if fnmatch(name, text)]
    else:
        names = sorted(glob(text))
    if not names:
        raise ConfigError(
            f"nothing matches {text!r}; give a folder or file of an aligned model, or a pattern of several"
        )
    return names
