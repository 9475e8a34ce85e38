"""Running a plan from the command line: refuse what can't be answered, sample, score, report, say what it took."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from deradiff.analysis.criteria import Criteria
    from deradiff.sweep import Journal, Plan

Shard = tuple[int, int]

_LITTLE_SAVED = 0.85  # exact takes 85 to 95 % of the published calls


def run_and_report(
    plan: "Plan",
    out: Path,
    *,
    rewards: list[str],
    objective: str | None,
    guard: str | None,
    shard: Shard | None = None,
    device: str = "cpu",
    offload: bool = False,
) -> None:
    """Sample, score and report a plan; says where things are, and last the recommended lam. A shard is sampled only."""
    from deradiff.cli.common import anchor_name, hush, model_path, progress
    from deradiff.cli.report import report
    from deradiff.rewards import load_reward, reward_name
    from deradiff.sweep import Journal
    from deradiff.sweep.models import load_pipeline
    from deradiff.sweep.relate import check_fit
    from deradiff.sweep.run import run
    from deradiff.sweep.score import score

    hush()
    journal = Journal(out, plan)
    journal.index()  # a damaged one is told before models are loaded
    for reward in rewards:
        check_fit(load_reward(reward), plan)
    names = [reward_name(reward) for reward in rewards]
    _refuse_unanswerable(plan, names, objective, guard, shard)
    own = shard or (0, 1)
    pipe = load_pipeline(model_path(plan.model), device=device, dtype=plan.dtype, offload=offload)
    with progress("sampling", sum(batch.count(plan) for batch in plan.batches(own))) as advance:
        run(journal, pipe, anchor_name(plan.anchor), advance, own)
    typer.echo(what_it_took(journal, own))
    for reward in rewards:
        with progress(reward, plan.count) as advance:
            score(journal, reward, advance, device=device)
    if rewards:
        report(out, objective or names[0], guard)
    else:
        when = "" if shard is None else f", when all {shard[1]} shards are done,"
        typer.echo(f"score them{when} with: deradiff score {out} --rewards NAME")
        typer.echo(f"and then: deradiff report {out} --objective NAME")


def what_it_took(journal: "Journal", shard: Shard) -> str:
    """Images, network calls and spot checks of a run, from what its batches noted."""
    from deradiff.sweep.check import estimated_error

    index, images, calls, published = journal.index(), 0, 0, 0
    errors: list[float] = []
    checking = 0
    for batch in journal.plan.batches(shard):
        record = index.get(batch.index)
        if record is not None:
            images += len(record.sha256)
            calls += record.info["calls"]
            published += record.info["calls_published"]
            errors += [check["error"] for check in record.info["checks"]]
            checking += sum(check["calls"] for check in record.info["checks"])
    if images == 0:  # more shards than batches
        return f"no images for this shard: the plan has fewer batches ({journal.plan.batch_count}) than {shard[1]}"
    share = f"{calls / published:.0%} of the {published:,} that two at each step of every lam would be"
    took = f"{images:,} images in {journal.folder}, by {calls:,} network calls: {share}"
    if journal.plan.particles > 1:
        took += (
            f"\n{journal.plan.particles} particles an image at lams between 0 and 1 take as many times the calls there"
        )
    if journal.plan.mode == "adaptive" and calls > _LITTLE_SAVED * published:
        took += "\nadaptive saves little at so few steps, lams or images; --mode exact costs about the same"
    if not errors:
        return took
    checks = f"{took}\n{len(errors)} spot check{'s' * (len(errors) > 1)} ({checking / calls:.1%} of the calls): "
    estimate = estimated_error(errors)
    if estimate is None:
        return (
            f"{checks}errors of final latents {', '.join(f'{error:.2%}' for error in errors)}, too few for an interval"
        )
    mean, low, high = (f"{value:.2%}" for value in estimate)
    return f"{checks}mean error of final latents {mean} (95 % interval {low} to {high})"


def list_images(plan: "Plan", shard: Shard) -> None:
    """Print one line of JSON an image."""
    name = plan.image_names()
    for cell in plan.cells(shard):
        image = name(cell)
        row = {
            "id": Path(image).stem,
            "prompt": plan.prompts[cell.prompt],
            "seed": plan.seeds[cell.seed],
            "guidance": plan.guidances[cell.guidance],
            "lam": plan.lams[cell.lam],
            "image": image,
        }
        sys.stdout.write(json.dumps(row) + "\n")


def _refuse_unanswerable(
    plan: "Plan", rewards: list[str], objective: str | None, guard: str | None, shard: Shard | None
) -> None:
    """Tell before an hour of sampling, not after, that no lam could be recommended from it."""
    from deradiff.cli.parsing import parse_criteria
    from deradiff.errors import PlanError

    asked = [("--rewards", ",".join(rewards)), ("--objective", objective), ("--guard", guard)]
    if shard is not None and (given := [option for option, value in asked if value]):
        raise PlanError(f"a shard is sampled only: leave out {', '.join(given)}, and score when all shards are done")
    if guard is not None and not rewards:
        raise PlanError(f"--guard {guard} is not among --rewards (none); add it there")
    question = parse_criteria(objective or rewards[0], guard) if objective or rewards else None
    for name in question.rewards if question else []:
        if name not in rewards:
            raise PlanError(f"{name} is not among --rewards {','.join(rewards) or '(none)'}; add it there")
    if rewards and (0 not in plan.lams or len(plan.lams) < 2 or len(plan.prompts) < 2):
        raise PlanError(
            "to recommend a lam a sweep needs lam = 0 (the reference), another lam, and at least 2 prompts; "
            f"got lams {list(plan.lams)} and {len(plan.prompts)} prompts (leave --rewards out to sample only)"
        )
    if question is not None:
        warn_of_few_prompts(question, len(plan.prompts))


def warn_of_few_prompts(criteria: "Criteria", prompts: int) -> None:
    """Tell before sampling which guards no lam above 0 could be shown to keep, however clean the data."""
    from deradiff.analysis.guards import least_prompts
    from deradiff.rewards import card_of, load_reward

    for guard in criteria.guards:
        card = card_of(load_reward(guard.reward))
        if not guard.relative or guard.margin is None or (card is not None and card.floor != 0):
            continue
        least = least_prompts(guard.margin, criteria.risk)
        if prompts < least:
            where = "" if card is not None else f"if {guard.reward} counts (0 or 1 an image), "
            typer.echo(
                f"Note: {where}{guard.reward} can't be shown to hold at any lam above 0 with {prompts} prompts: it "
                f"takes {least} or more at {criteria.risk:.0%} risk",
                err=True,
            )
