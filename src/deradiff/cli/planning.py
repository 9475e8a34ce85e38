"""From the options of ``deradiff sweep`` and ``search`` to a run and what is asked of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from deradiff.anchor.location import Location
from deradiff.anchor.source import card_of
from deradiff.cli.common import ON_THIS_MACHINE, hush, own_guidance
from deradiff.cli.parsing import lams_for_betas, parse_delimiter, parse_numbers, parse_seeds, parse_share
from deradiff.cluster import Cluster
from deradiff.errors import ConfigError
from deradiff.runs.legacy import is_legacy, open_run_folder
from deradiff.runs.prompts import read_prompts
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import SEEDS, Run
from deradiff.runs.store import Store
from deradiff.search.state import read_state
from deradiff.testbed import EMBEDDED, is_embedded, resolve_anchor


def open_run(ctx: typer.Context, out: Path) -> Run:
    """The run in a folder, or a new one, under the recipe that the options give; what isn't given is the run's.

    Raises:
        ConfigError: names the option that is wrong and why.
        RunFolderError: the folder holds a run of another recipe; names what differs.
    """
    options = recipe_options(ctx)
    if Store.exists(out) or is_legacy(out):
        store = open_run_folder(out)
        values: dict[str, Any] = store.recipe.model_dump()
        values |= {name: store.located(values[name]) for name in ("model", "anchor")}
        given = {name for name in ("model", "anchor") if options.keys() & {name, *_location_options(name)}}
        values |= {f"{name}_hash": None for name in given}
        recipe = Recipe(**{**values, **options})
    else:
        values = {"model": EMBEDDED, "anchor": EMBEDDED, **options}
        recipe = Recipe(**values)
        if recipe.anchor_beta is None:
            beta = card_of(resolve_anchor(recipe.anchor), recipe.anchor_location).get("beta")
            values["anchor_beta"] = beta
            recipe = Recipe(**values)
    check_anchor_given(recipe.model, recipe.anchor)
    if recipe.dtype == "auto":  # looked up in the model's files, which may have to be fetched
        hush()
    return Run(
        out, recipe, device=ctx.params["device"], offload=ctx.params["offload"], cluster=cluster_given(ctx.params)
    )


def cluster_given(params: Mapping[str, Any]) -> Cluster | None:
    """The cluster that the options name; None where there is none.

    Raises:
        ConfigError: a setting of a cluster without ``--ray``, or one that can't be used.
    """
    if "ray" not in params:  # a command that works in this process alone
        return None
    options = {"ray_workers": "workers"} | {
        name: name for name in ("gpus_per_worker", "storage", "retry_quarantined") if name in params
    }
    settings = {setting: params[option] for option, setting in options.items()}
    address = params["ray"]
    if address is not None:
        return Cluster(address=None if address == ON_THIS_MACHINE else address, **settings)
    if given := [f"--{option.replace('_', '-')}" for option in options if params[option] not in (None, False)]:
        raise ConfigError(f"{', '.join(given)} needs a cluster: add --ray, or leave it out")
    return None


def recipe_options(ctx: typer.Context) -> dict[str, Any]:
    """The options of a command line that belong to a recipe, but for those that weren't given.

    Raises:
        ConfigError: a share that can't be read.
    """
    options = {name: ctx.params[name] for name in Recipe.model_fields if name in ctx.params and _is_given(ctx, name)}
    if isinstance(options.get("target_error"), str):
        options["target_error"] = parse_share(options["target_error"])
    return options


def check_anchor_given(model: str, anchor: str, option: str = "--anchor") -> None:
    """Check that another model than the embedded one has an anchor of its own.

    Args:
        model: as it was given.
        anchor: likewise, or the default.
        option: that names the anchor.

    Raises:
        ConfigError: its anchor is the default, which fits the embedded model alone.
    """
    if anchor == EMBEDDED and not is_embedded(model):
        raise ConfigError(
            f"{option} is missing: {model} needs a LoRA or checkpoint that was aligned from it, and the default, an "
            "embedded one, fits the embedded model alone"
        )


def prompts_given(ctx: typer.Context) -> list[str] | None:
    """The prompts of a file and of the command line; None where there are none.

    Raises:
        ConfigError: a file that holds none, or no column of prompts.
    """
    path, texts_typed = ctx.params["prompts"], ctx.params["prompt"]
    where = {name: ctx.params[name] for name in ("column", "split", "delimiter")}
    where["delimiter"] = parse_delimiter(where["delimiter"])
    if path is None and any(where.values()):
        raise ConfigError("--column, --split and --delimiter say how --prompts is read: give it, or leave them out")
    return [*(read_prompts(path, **where) if path else []), *(texts_typed or [])] or None


def seeds_given(ctx: typer.Context) -> tuple[int, ...] | None:
    """The seeds; None where they weren't given."""
    return parse_seeds(ctx.params["seeds"]) if _is_given(ctx, "seeds") else None


def guidances_given(ctx: typer.Context, run: Run) -> Sequence[float | None] | None:
    """The guidances; None where none was given and the run has some already."""
    guidance = ctx.params["guidance"]
    if guidance is not None:
        return parse_numbers(guidance, "guidance")
    return None if run.store.requests() else [own_guidance(run.recipe.model)]


def lams_given(lams: str | None, betas: str | None, anchor_beta: float | None) -> Sequence[float] | None:
    """The lams, or those that some betas stand for; None where neither was given.

    Raises:
        ConfigError: both, or a text that can't be read.
    """
    if lams is not None and betas is not None:
        raise ConfigError("give --lams or --betas, not both")
    if betas is not None:
        return lams_for_betas(betas, anchor_beta)
    return None if lams is None else parse_numbers(lams)


def requests_given(ctx: typer.Context, run: Run) -> list[Any]:
    """What the options of a sweep ask for; what isn't given is the run's.

    Raises:
        ConfigError: no prompts in a new run, or a value that can't be used.
    """
    lams = lams_given(ctx.params["lams"], ctx.params["betas"], run.recipe.anchor_beta)
    prompts, seeds, guidances = prompts_given(ctx), seeds_given(ctx), guidances_given(ctx, run)
    if prompts is None and not run.store.requests():
        raise ConfigError("no prompts: give --prompts FILE, or --prompt TEXT one or more times")
    return run.requests(prompts, seeds, lams, guidances)


def search_axes(ctx: typer.Context, run: Run) -> tuple[list[str], list[int], float | None]:
    """Prompts, seeds and guidance of a search; what isn't given is the run's.

    Raises:
        ConfigError: no prompts, or several guidances.
    """
    earlier = run.store.requests()
    prompts = prompts_given(ctx) or list(dict.fromkeys(text for request in earlier for text in request.prompts))
    if not prompts:
        raise ConfigError("no prompts: give --prompts FILE, or --prompt TEXT one or more times")
    seeds = seeds_given(ctx)
    known = sorted({seed for request in earlier for seed in request.seeds})
    guidances = guidances_given(ctx, run) or list(dict.fromkeys(g for request in earlier for g in request.guidances))
    if len(guidances) > 1:
        named = ", ".join(f"{scale:g}" for scale in guidances if scale is not None)
        raise ConfigError(f"a search is at one guidance, got {named}; give --guidance with one of them")
    if seeds is None:
        state = read_state(run.folder)
        return prompts, sorted(state.seeds) if state else known or list(range(SEEDS)), guidances[0]
    return prompts, list(seeds), guidances[0]


def _location_options(part: str) -> set[str]:
    return {f"{part}_{name}" for name in Location.model_fields}


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
