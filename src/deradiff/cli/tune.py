"""``deradiff tune``: from preferences to a baked LoRA; every stage is a command of its own."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deradiff.cli import options
from deradiff.cli.common import EMBEDDED, echo

if TYPE_CHECKING:
    from deradiff.analysis.recommend import Recommendation

ALIGN, QUESTION, RUN = "Align once", "The question", "The run"  # panels of the help
_STATE, _PROMPTS = "tune.json", "prompts.txt"
_EMBEDDED_PROMPTS = 64  # to choose lam on, where none are given


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command.

    Attributes:
        name: of the stage.
        words: of the command line, after ``deradiff``.
        output: what is there once it is done.
        cost: in words.
    """

    name: str
    words: tuple[str, ...]
    output: Path
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
    stages = list(_stages(ctx.params, out))
    if dry_run:
        for stage in stages:
            echo(f"{stage.name}{' (done)' if _is_done(stage, out) else ''}: {stage.cost}\n  {stage.command}")
        return
    if prompts is None:
        texts = testbed.prompts(_EMBEDDED_PROMPTS, drop=0.5)
        write_whole(out / _PROMPTS, "".join(f"{text}\n" for text in texts).encode())
    for stage in stages[:-1]:
        _run(ctx, stage, out)
    answer = _answer(out / "run", objective, guard, risk)
    if not answer.lam:
        echo("nothing to bake: no lam above 0 is shown to be better; the lines above say what would decide", err=True)
        raise typer.Exit(1)
    _run(ctx, _bake_stage(out, answer.lam, distil), out)
    echo(f"lam {answer.lam:g} is baked in {out / 'baked'}; the report is {(out / 'run' / 'report.html').resolve()}")


def _stages(params: dict[str, Any], out: Path) -> Iterator[Stage]:
    """The commands in order; the lam of the last isn't known yet."""
    from deradiff.cli.parsing import parse_seeds
    from deradiff.runs.prompts import read_prompts
    from deradiff.runs.recipe import Recipe
    from deradiff.search.settings import make_grid

    model, prompts = str(params["model"]), params["prompts"] or out / _PROMPTS
    source = ("--data", str(params["data"])) if params["data"] else ("--self-label", str(params["self_label"]))
    config = ("--config", str(params["align_config"])) if params["align_config"] else ()
    sampled = ("--prompts", str(prompts)) if params["self_label"] else ()
    yield Stage(
        name="align",
        words=(
            "align", "--model", model, *source, *sampled, "--beta", f"{params['beta']:g}", *config,
            "--out", str(out / "anchor"),
        ),
        output=out / "anchor" / "checkpoint.pt",
        cost="one training; its log is anchor/log.jsonl",
    )  # fmt: skip
    guards = ("--guard", params["guard"]) if params["guard"] else ()
    question = ("--objective", params["objective"], *guards, "--risk", f"{params['risk']:g}")
    scale = () if params["guidance"] is None else ("--guidance", f"{params['guidance']:g}")
    most = () if params["max_images"] is None else ("--max-images", str(params["max_images"]))
    count = len(read_prompts(prompts)) if params["prompts"] else _EMBEDDED_PROMPTS
    lams, seeds = make_grid(1.0), len(parse_seeds(params["seeds"]))
    images = count * seeds * len(lams)
    nfe = count * seeds * sum(Recipe(steps=params["steps"]).nfe(lam) for lam in lams)
    yield Stage(
        name="search",
        words=(
            "search", "--model", model, "--anchor", str(out / "anchor"), "--prompts", str(prompts), *question,
            "--seeds", params["seeds"], "--steps", str(params["steps"]), *scale, *most, "--out", str(out / "run"),
        ),
        output=out / "run" / "search.json",
        cost=f"some of {images:,} images, {nfe:,} NFE for all of them",
    )  # fmt: skip
    yield Stage(
        name="report",
        words=("report", str(out / "run"), *question),
        output=out / "run" / "report.html",
        cost="one page",
    )
    yield _bake_stage(out, None, params["distil"])


def _bake_stage(out: Path, lam: float | None, distil: str | None) -> Stage:
    length = ("--distil", distil) if distil else ()
    chosen = "LAM" if lam is None else f"{lam:g}"
    return Stage(
        name="bake",
        words=("bake", str(out / "run"), "--lam", chosen, *length, "--out", str(out / "baked")),
        output=out / "baked" / "bake.html",
        cost=f"{distil} of distillation, and 48 images to measure it" if distil else "48 images to measure it",
    )


def _run(ctx: typer.Context, stage: Stage, out: Path) -> None:
    """Run a stage's command, unless it is done; note that it is."""
    if _is_done(stage, out):
        echo(f"{stage.name} is done: {stage.command}", err=True)
        return
    echo(f"\n$ {stage.command}", err=True)
    root: Any = ctx.find_root().command
    if code := root.main(list(stage.words), prog_name="deradiff", standalone_mode=False):
        raise typer.Exit(code)
    _note(stage, out)


def _is_done(stage: Stage, out: Path) -> bool:
    return stage.output.exists() and _noted(out).get(stage.name) == list(stage.words)


def _noted(out: Path) -> dict[str, Any]:
    """The words of each stage that was done."""
    from deradiff.reading import exists, read_object

    path = out / _STATE
    return read_object(path, "the state of the stages") if exists(path, "the state of the stages") else {}


def _note(stage: Stage, out: Path) -> None:
    """Note a stage as done; what comes after it is not done any more."""
    from deradiff.writing import write_whole

    order = ("align", "search", "report", "bake")
    before = order[: order.index(stage.name)]
    noted = {name: words for name, words in _noted(out).items() if name in before} | {stage.name: list(stage.words)}
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
