"""``deradiff tune``: from preferences to a baked LoRA; every stage is a command of its own."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, duration, echo
from deradiff.cli.tune_checks import check_paths, check_stages

if TYPE_CHECKING:
    from deradiff.analysis.recommend import Recommendation

ALIGN, QUESTION, RUN = "Align once", "The question", "The run"  # panels of the help
_STATE, _PROMPTS = "tune.json", "prompts.txt"
_EMBEDDED_PROMPTS, _PROMPTS_SEED = 64, 11  # to choose lam on, where none are given: others than align's own
_ORDER = ("align", "search", "report", "bake")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command.

    Attributes:
        name: of the stage.
        words: of the command line, after ``deradiff``.
        output: what is there once it is done.
        shown: what to look at then.
        cost: in words.
    """

    name: str
    words: tuple[str, ...]
    output: Path
    shown: Path
    cost: str

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["deradiff", *self.words])


def tune(
    ctx: typer.Context,
    beta: Annotated[
        float,
        typer.Option(help="KL strength to align at, in the units of align's --convention.", rich_help_panel=ALIGN),
    ],
    objective: Annotated[str, typer.Option(help="Reward to raise.", rich_help_panel=QUESTION)],
    out: Annotated[Path, typer.Option(help="Folder of all stages: anchor, run, baked.", rich_help_panel=RUN)],
    model: options.Model = EMBEDDED,
    data: Annotated[Path | None, typer.Option(help="Preferences, as align takes them.", rich_help_panel=ALIGN)] = None,
    self_label: Annotated[
        str | None, typer.Option(help="Instead of --data: a reward that judges own samples.", rich_help_panel=ALIGN)
    ] = None,
    align_config: Annotated[
        Path | None, typer.Option(help="YAML file of further options of align.", rich_help_panel=ALIGN)
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="To choose lam on, as sweep takes them.", rich_help_panel=QUESTION)
    ] = None,
    guard: options.Guard = None,
    risk: options.Risk = 0.05,
    seeds: options.Seeds = "4",
    steps: options.Steps = 25,
    guidance: options.Guidance = None,
    max_images: Annotated[
        int | None, typer.Option(help="Most images that the search may sample.", rich_help_panel=QUESTION)
    ] = None,
    distil: Annotated[
        str | None, typer.Option(help="Distil the bake for so long, such as 5min.", rich_help_panel=RUN)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and what they cost.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Align once, search lam, write the report, and bake the answer.

    Every stage is printed as the command that it is, goes on where it was stopped, and is not done again once it is
    done. A search that finds no lam shown to be better ends it there, and says what would decide.
    """
    from deradiff import testbed
    from deradiff.errors import ConfigError
    from deradiff.writing import write_whole

    if prompts is None and model != EMBEDDED:
        raise ConfigError("no prompts to choose lam on: give --prompts FILE")
    if (data is None) == (self_label is None):
        raise ConfigError("give either --data, a table of preferences, or --self-label, a reward that makes them")
    check_paths(ctx.params)
    check_stages(ctx.params, _align_params(ctx, _align_words(ctx.params, out)), _count_prompts(prompts))
    stages = list(_stages(ctx, out))
    if dry_run:
        done = True  # a stage that isn't done has the later ones done again
        for stage in stages:
            done = done and _is_done(stage, out)
            echo(f"{_title(stage)}{' (done)' if done else ''}: {stage.cost}\n  {stage.command}")
        return
    for stage in stages[:-1]:
        if stage.name == "search" and prompts is None:
            texts = testbed.prompts(_EMBEDDED_PROMPTS, seed=_PROMPTS_SEED, drop=0.5)
            write_whole(out / _PROMPTS, "".join(f"{text}\n" for text in texts).encode())
        _run(ctx, stage, out)
    answer = _answer(out / "run", objective, guard, risk)
    if answer.lam:
        stages[-1] = _bake_stage(out, answer.lam, distil)
        _run(ctx, stages[-1], out)
    _print_summary(stages if answer.lam else stages[:-1], out)
    if not answer.lam:
        echo("nothing to bake: no lam above 0 is shown to be better; the lines above say what would decide", err=True)
        raise typer.Exit(1)
    beta_of_lam = "" if answer.beta is None else f" (beta {answer.beta:g})"
    echo(f"lam {answer.lam:g}{beta_of_lam} is baked in {out / 'baked'}; plain diffusers loads it:")
    echo(f"  pipe.load_lora_weights({str(out / 'baked')!r})")
    echo(f"another lam of the same run: deradiff bake {shlex.quote(str(out / 'run'))} --lam LAM --out FOLDER")


def _title(stage: Stage) -> str:
    return f"{_ORDER.index(stage.name) + 1}/{len(_ORDER)} {stage.name}"


def _print_summary(stages: Sequence[Stage], out: Path) -> None:
    """What each stage took, and where what it made is; paths stay whole in a narrow terminal."""
    noted = _noted(out)
    echo("\nstage       took  made")
    for stage in stages:
        echo(f"{stage.name:<8}{duration(float(noted[stage.name]['seconds'])):>8}  {stage.shown}")


def _stages(ctx: typer.Context, out: Path) -> Iterator[Stage]:
    """The commands in order; the lam of the last isn't known yet."""
    params = ctx.params
    guards = ("--guard", params["guard"]) if params["guard"] else ()
    question = ("--objective", params["objective"], *guards, "--risk", f"{params['risk']:g}")
    yield _align_stage(ctx, out)
    yield _search_stage(params, out, question)
    yield Stage(
        name="report",
        words=("report", str(out / "run"), *question),
        output=out / "run" / "report.html",
        shown=out / "run" / "report.html",
        cost="one page",
    )
    yield _bake_stage(out, None, params["distil"])


def _align_words(params: Mapping[str, Any], out: Path) -> tuple[str, ...]:
    source = ("--data", str(params["data"])) if params["data"] else ("--self-label", str(params["self_label"]))
    sampled = ("--prompts", str(params["prompts"])) if params["self_label"] and params["prompts"] else ()
    config = ("--config", str(params["align_config"])) if params["align_config"] else ()
    return (
        "align", "--model", params["model"], *source, *sampled, "--beta", f"{params['beta']:g}", *config,
        "--out", str(out / "anchor"),
    )  # fmt: skip


def _align_stage(ctx: typer.Context, out: Path) -> Stage:
    from deradiff.anchor.earlier_weights import CHECKPOINT

    words = _align_words(ctx.params, out)
    return Stage(
        name="align",
        words=words,
        output=out / "anchor" / CHECKPOINT,
        shown=out / "anchor",
        cost=_cost_of_align(_align_params(ctx, words)),
    )


def _search_stage(params: Mapping[str, Any], out: Path, question: Sequence[str]) -> Stage:
    prompts = params["prompts"] or out / _PROMPTS
    scale = () if params["guidance"] is None else ("--guidance", f"{params['guidance']:g}")
    most = () if params["max_images"] is None else ("--max-images", str(params["max_images"]))
    return Stage(
        name="search",
        words=(
            "search", "--model", params["model"], "--anchor", str(out / "anchor"), "--prompts", str(prompts), *question,
            "--seeds", params["seeds"], "--steps", str(params["steps"]), *scale, *most, "--out", str(out / "run"),
        ),
        output=out / "run" / "search.json",
        shown=out / "run",
        cost=_cost_of_search(params),
    )  # fmt: skip


def _count_prompts(path: Path | None) -> int:
    from deradiff.runs.prompts import read_prompts

    return len(read_prompts(path)) if path else _EMBEDDED_PROMPTS


def _cost_of_search(params: Mapping[str, Any]) -> str:
    """The most that it may sample: every prompt and seed at every lam of the grid."""
    from deradiff.cli.parsing import parse_seeds
    from deradiff.runs.recipe import Recipe
    from deradiff.search.settings import make_grid

    lams, rows = make_grid(1.0), _count_prompts(params["prompts"]) * len(parse_seeds(params["seeds"]))
    nfe = rows * sum(Recipe(steps=params["steps"]).nfe(lam) for lam in lams)
    return f"some of {rows * len(lams):,} images, {nfe:,} NFE for all of them"


def _align_params(ctx: typer.Context, words: Sequence[str]) -> Mapping[str, Any]:
    """The options that the command would have.

    Raises:
        ConfigError: an option of --align-config that can't be used.
    """
    root: Any = ctx.find_root().command
    return root.commands["align"].make_context("align", list(words[1:]), parent=ctx.find_root()).params


def _cost_of_align(align: Mapping[str, Any]) -> str:
    """Samples and steps of a training."""
    steps = f"{align['steps']:,} steps of {align['train_batch_size']} pairs"
    if align["data"] is not None:
        return f"{steps}; its log is anchor/log.jsonl"
    sampling = f"{align['images']} images a prompt at {align['sampling_steps']} steps"
    return f"{sampling} to make pairs of, then {steps}; its log is anchor/log.jsonl"


def _bake_stage(out: Path, lam: float | None, distil: str | None) -> Stage:
    length = ("--distil", distil) if distil else ()
    chosen = "LAM" if lam is None else f"{lam:g}"
    return Stage(
        name="bake",
        words=("bake", str(out / "run"), "--lam", chosen, *length, "--out", str(out / "baked")),
        output=out / "baked" / "bake.html",
        shown=out / "baked" / "bake.html",
        cost=f"{distil} of distillation, and 48 images to measure it" if distil else "48 images to measure it",
    )


def _run(ctx: typer.Context, stage: Stage, out: Path) -> None:
    """Run a stage's command, unless it is done; note that it is."""
    if _is_done(stage, out):
        echo(f"{_title(stage)} is done: {stage.command}", err=True)
        return
    echo(f"\n{_title(stage)}: {stage.cost}\n$ {stage.command}", err=True)
    began = time.monotonic()
    root: Any = ctx.find_root().command
    if code := root.main(list(stage.words), prog_name="deradiff", standalone_mode=False):
        raise typer.Exit(code)
    _note(stage, out, time.monotonic() - began)


def _is_done(stage: Stage, out: Path) -> bool:
    return stage.output.exists() and _noted(out).get(stage.name, {}).get("words") == list(stage.words)


def _noted(out: Path) -> dict[str, Any]:
    """The words of each stage that was done, and the seconds that it took."""
    from deradiff.reading import exists, read_object

    path = out / _STATE
    noted = read_object(path, "the state of the stages") if exists(path, "the state of the stages") else {}
    return {name: entry for name, entry in noted.items() if isinstance(entry, dict)}  # lists are of older versions


def _note(stage: Stage, out: Path, seconds: float) -> None:
    """Note a stage as done; what comes after it is not done any more."""
    from deradiff.writing import write_whole

    before = _ORDER[: _ORDER.index(stage.name)]
    noted = {name: entry for name, entry in _noted(out).items() if name in before}
    noted[stage.name] = {"words": list(stage.words), "seconds": round(seconds, 1)}
    write_whole(out / _STATE, json.dumps(noted, indent=1).encode())


def _answer(run: Path, objective: str, guard: str | None, risk: float) -> "Recommendation":
    """What the search recommends."""
    from deradiff.cli.parsing import parse_criteria
    from deradiff.cli.recommend import answer_of_search
    from deradiff.errors import RunFolderError
    from deradiff.runs.legacy import open_run_folder
    from deradiff.runs.results import load_results

    criteria = parse_criteria(objective, guard, None, risk)
    search_result = answer_of_search(run, load_results(open_run_folder(run)), criteria)
    if search_result is None:
        raise RunFolderError(f"{run} was not searched; give another --out")
    return search_result.recommendation
