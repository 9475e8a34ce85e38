"""``deradiff sweep``: every lam for every prompt and seed, into a run folder that can be resumed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deradiff.cli.common import (
    EMBEDDED,
    AnchorOption,
    Component,
    Device,
    Guard,
    Guidance,
    Half,
    Height,
    Model,
    Scheduler,
    Steps,
    Width,
)

if TYPE_CHECKING:
    from deradiff.sweep import Plan


def sweep(
    prompts: Annotated[Path | None, typer.Option(help="File of prompts: .txt, .csv or .jsonl.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be given several times.")] = None,
    lams: Annotated[str | None, typer.Option(help="0,0.5,1 or start:stop:count.  [default: 0:2:9]")] = None,
    betas: Annotated[str | None, typer.Option(help="KL strengths to emulate instead of lams: 500,1000,5000.")] = None,
    anchor_beta: Annotated[float | None, typer.Option(help="The anchor's KL strength; default: its card's.")] = None,
    seeds: Annotated[int, typer.Option(help="Images per prompt and lam: seeds 0, 1, ...", min=1)] = 4,
    model: Model = EMBEDDED,
    anchor: AnchorOption = EMBEDDED,
    component: Component = None,
    scheduler: Scheduler = None,
    steps: Steps = 25,
    guidance: Guidance = None,
    height: Height = None,
    width: Width = None,
    batch_size: Annotated[int, typer.Option(help="Images a batch.", min=1)] = 8,
    rewards: Annotated[str, typer.Option(help="Rewards to score, separated by commas.")] = "",
    objective: Annotated[str | None, typer.Option(help="Reward to raise.  [default: the first of --rewards]")] = None,
    guard: Guard = None,
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run of the same plan goes on there.")] = Path(
        "runs/sweep"
    ),
    device: Device = "cpu",
    half: Half = False,
) -> None:
    """Sample every prompt and seed at every lam, score the images, and write a report with the lam to take."""
    from deradiff.anchor.source import card_of
    from deradiff.cli.common import anchor_name, guidance_for
    from deradiff.errors import PlanError
    from deradiff.sweep import Plan
    from deradiff.sweep.given import lams_for_betas, parse_lams, read_prompts

    if lams is not None and betas is not None:
        raise PlanError("give --lams or --betas, not both")
    texts = [*(read_prompts(prompts) if prompts else []), *(prompt or [])]
    if not texts:
        raise PlanError("no prompts: give --prompts FILE, or --prompt TEXT one or more times")
    beta = anchor_beta if anchor_beta is not None else card_of(anchor_name(anchor)).get("beta")
    values = lams_for_betas(betas, beta) if betas is not None else parse_lams(lams or "0:2:9")
    plan = Plan.of(
        model=model,
        anchor=anchor,
        prompts=texts,
        seeds=range(seeds),
        lams=values,
        anchor_beta=beta,
        component=component,
        scheduler=scheduler,
        steps=steps,
        guidance=guidance_for(model, guidance),
        height=height,
        width=width,
        half=half,
        batch_size=batch_size,
    )
    names = [name.strip() for name in rewards.split(",") if name.strip()]
    run_and_report(plan, out, rewards=names, objective=objective, guard=guard, device=device)


def run_and_report(
    plan: "Plan",
    out: Path,
    *,
    rewards: list[str],
    objective: str | None,
    guard: str | None,
    device: str = "cpu",
) -> None:
    """Sample, score and report a plan; says where things are, and last the recommended lam."""
    from deradiff.cli.common import anchor_name, hush, model_path, progress
    from deradiff.cli.report import write
    from deradiff.rewards import load_reward
    from deradiff.sweep import Journal
    from deradiff.sweep.models import load_pipeline
    from deradiff.sweep.run import run, score

    hush()
    journal = Journal(out, plan)
    for reward in rewards:
        load_reward(reward)
    _refuse_unanswerable(plan, rewards, objective, guard)
    total = len(plan.prompts) * len(plan.seeds) * len(plan.lams)
    pipe = load_pipeline(model_path(plan.model), device=device, half=plan.half)
    with progress("sampling", total) as advance:
        run(journal, pipe, anchor_name(plan.anchor), advance)
    for reward in rewards:
        with progress(reward, total) as advance:
            score(journal, reward, advance)
    if rewards:
        write(out, objective or rewards[0], guard)
    else:
        typer.echo(f"{total} images in {out}; score them with: deradiff score {out} --rewards NAME")


def _refuse_unanswerable(plan: "Plan", rewards: list[str], objective: str | None, guard: str | None) -> None:
    """Tell before an hour of sampling, not after, that no lam could be recommended from it."""
    from deradiff.errors import PlanError

    for option, name in (("--objective", objective), ("--guard", guard)):
        if name is not None and name not in rewards:
            raise PlanError(f"{option} {name} is not among --rewards {','.join(rewards) or '(none)'}; add it there")
    if guard is not None and guard == (objective or rewards[0]):
        raise PlanError(f"the guard {guard} is the objective itself; give another --guard, or --objective")
    if rewards and (0 not in plan.lams or len(plan.lams) < 2 or len(plan.prompts) < 2):
        raise PlanError(
            "to recommend a lam a sweep needs lam = 0 (the reference), another lam, and at least 2 prompts; "
            f"got lams {list(plan.lams)} and {len(plan.prompts)} prompts (leave --rewards out to sample only)"
        )
