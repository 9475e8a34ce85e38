"""Growing a run from the command line: check that it can be answered, sample, score, report, say what it took."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deradiff.cli.common import duration, echo, size

if TYPE_CHECKING:
    from deradiff.analysis.criteria import Criteria
    from deradiff.runs.cells import Request, Shard
    from deradiff.runs.costs import Cost
    from deradiff.runs.run import Run

_LITTLE_SAVED = 0.85  # of the naive cost: exact takes 85 to 95%


def run_and_report(
    run: "Run",
    requests: "Sequence[Request]",
    *,
    rewards: list[str],
    objective: str | None,
    guard: str | None,
    shard: "Shard | None" = None,
) -> None:
    """Sample what is missing, score and report it; says where things are, and last the recommended lam.

    A shard is sampled only.
    """
    from deradiff.cli.common import scoring_each
    from deradiff.cli.parsing import parse_criteria
    from deradiff.cli.report import report_run

    names = _check_rewards(run, requests, rewards) if rewards else []
    _check_answerable(run, requests, dict(zip(names, rewards, strict=True)), objective, guard, shard)
    _check_prompts(run, requests, rewards)
    _sample(run, requests, shard)
    if rewards:
        with scoring_each(rewards, sum(1 for _ in _journalled(run)), lambda name, p: run.score(name, progress=p)):
            report_run(run.folder, parse_criteria(objective or names[0], guard))
    elif scored := _rewards_of(run):
        if unscored := _unscored(run):
            echo(f"score what is new with: deradiff score {run.folder} --rewards {','.join(unscored)}")
        else:
            echo(f"all is scored: deradiff report {run.folder} --objective {scored[0]}")
    else:
        when = "" if shard is None else f", when all {shard[1]} shards are done,"
        echo(f"score them{when} with: deradiff score {run.folder} --rewards NAME")
        echo(f"and then: deradiff report {run.folder} --objective NAME")


def _check_rewards(run: "Run", requests: "Sequence[Request]", rewards: "Sequence[str]") -> list[str]:
    """Check before sampling that rewards exist and have what they compare; returns the names of their scores."""
    from deradiff.rewards import check_distinct, load_reward, reward_name  # imports torch
    from deradiff.runs.scoring import check_group

    check_distinct(rewards)
    for reward in rewards:
        check_group(load_reward(reward), [*run.store.requests(), *requests])
    return [reward_name(reward) for reward in rewards]


def _check_prompts(run: "Run", requests: "Sequence[Request]", rewards: "Sequence[str]") -> None:
    """Check before sampling that rewards can score the prompts that are new to the run; scoring names the others."""
    if not rewards:
        return
    from deradiff.rewards import check_prompts, load_reward, reward_name  # imports torch

    known = {prompt for request in run.store.requests() for prompt in request.prompts}
    new = list(dict.fromkeys(prompt for request in requests for prompt in request.prompts if prompt not in known))
    for reward in rewards:
        check_prompts(reward_name(reward), load_reward(reward), new)


def _sample(run: "Run", requests: "Sequence[Request]", shard: "Shard | None") -> None:
    from deradiff.cli.common import hush, progress

    whole = (0, 1) if shard is None else shard
    cost = run.cost(requests, whole)
    if not cost.cells:
        echo("no images for this shard: there are more shards than blocks")
        return
    if not cost.missing:
        for request in requests:
            run.store.add_request(request)
        echo(f"complete: all {cost.cells:,} images asked for are in {run.folder}")
        return
    hush()
    with run.block_sampler() as sampler:
        if cost.seconds is None:
            cost = run.cost(requests, whole, sampler=sampler)
        echo(cost_line(cost))
        with progress("sampling", cost.missing, lambda: sampler.status) as advance:
            run.sample_requests(requests, shard=whole, progress=advance, sampler=sampler)
    echo(what_it_took(run))


def cost_line(cost: "Cost") -> str:
    """What is missing and what it costs, in a sentence."""
    there = cost.cells - cost.missing
    text = f"{cost.missing:,} images to sample{f' ({there:,} are there)' if there else ''}: {cost.nfe:,} NFE"
    if cost.seconds is None or cost.disk is None:
        return text
    return f"{text}, about {duration(cost.seconds)} and {size(cost.disk)} (measured on {cost.source})"


def print_cost(run: "Run", requests: "Sequence[Request]", shard: "Shard | None") -> None:
    """What is missing and what it costs; nothing is sampled."""
    from deradiff.cli.common import hush

    hush()
    cost = run.cost(requests, shard or (0, 1), timed=True)
    if not cost.missing:
        echo(f"complete: all {cost.cells:,} images asked for are in {run.folder}")
        return
    echo(cost_line(cost))
    if cost.seconds is None:
        echo("too few images for a timed estimate")


def what_it_took(run: "Run") -> str:
    """Images, NFE and spot checks of a run, from what its records say."""
    from deradiff.runs.spot_checks import estimated_error

    images = nfe = published = checking = 0
    errors: list[float] = []
    for record in run.store.records():
        images += len(record.keys)
        nfe += record.info.nfe
        published += record.info.nfe_published
        errors += [check.error for check in record.info.spot_checks]
        checking += sum(check.nfe for check in record.info.spot_checks)
    if images == 0:  # more shards than blocks
        return "no images for this shard: there are more shards than blocks"
    recipe, nfe = run.recipe, nfe + checking
    took = f"{images:,} images in {run.folder}: {nfe:,} NFE, {nfe / max(1, published):.0%} of the naive cost"
    if recipe.particles > 1:
        took += f"\n{recipe.particles} particles an image multiply the NFE at lams between 0 and 1"
    if recipe.policy == "adaptive" and nfe > _LITTLE_SAVED * published:
        took += "\nadaptive saves little at so few steps, lams or images; --policy exact costs about the same"
    if not errors:
        return took
    checks = f"{took}\n{len(errors)} spot check{'s' * (len(errors) > 1)} ({checking / nfe:.1%} of the NFE): "
    estimate = estimated_error(errors)
    if estimate is None:
        listed = ", ".join(f"{error:.2%}" for error in errors)
        return f"{checks}errors of final latents {listed}, too few for an interval"
    mean, low, high = (f"{value:.2%}" for value in estimate)
    return f"{checks}mean error of final latents {mean} (95% interval {low} to {high})"


def list_images(run: "Run", requests: "Sequence[Request]", shard: "Shard | None") -> None:
    """Print one line of JSON an image that is asked for."""
    from deradiff.runs.cells import image_name
    from deradiff.runs.missing import cells_of_shard

    for cell in cells_of_shard(run.recipe, requests, shard or (0, 1)):
        key = run.store.keys(cell)
        sys.stdout.write(json.dumps({"id": key, **cell._asdict(), "image": image_name(key)}) + "\n")


def _journalled(run: "Run") -> list[str]:
    return [key for record in run.store.records() for key in record.keys]


def _rewards_of(run: "Run") -> list[str]:
    return list(dict.fromkeys(record.reward for record in run.store.scores()))


def _unscored(run: "Run") -> list[str]:
    """The rewards that some images have no score of yet."""
    from deradiff.runs.results import guidances_of, journalled_images, load_results

    images = journalled_images(run.store)
    tables = [load_results(run.store, guidance, images=images) for guidance in guidances_of(run.store, images)]
    return list(dict.fromkeys(name for table in tables for name in table.unscored))


def _check_answerable(
    run: "Run",
    requests: "Sequence[Request]",
    rewards: dict[str, str],
    objective: str | None,
    guard: str | None,
    shard: "Shard | None",
) -> None:
    """Tell before an hour of sampling, not after, that no lam could be recommended from it."""
    from deradiff.cli.parsing import parse_criteria
    from deradiff.errors import ConfigError

    asked = [("--rewards", ",".join(rewards)), ("--objective", objective), ("--guard", guard)]
    if shard is not None and (excess := [option for option, value in asked if value]):
        raise ConfigError(f"a shard is sampled only: leave out {', '.join(excess)}, and score when all shards are done")
    if guard is not None and not rewards:
        raise ConfigError(f"--guard {guard} is not among --rewards (none); add it there")
    question = parse_criteria(objective or next(iter(rewards)), guard) if objective or rewards else None
    for name in question.rewards if question else []:
        if name not in rewards:
            raise ConfigError(f"{name} is not among --rewards {','.join(rewards) or '(none)'}; add it there")
    every = [*run.store.requests(), *requests]
    lams = sorted({lam for request in every for lam in request.lams})
    prompts = len({prompt for request in every for prompt in request.prompts})
    if rewards and (0 not in lams or len(lams) < 2 or prompts < 2):
        raise ConfigError(
            "to recommend a lam a run needs lam = 0 (the reference), another lam, and at least 2 prompts; "
            f"got lams {lams} and {prompts} prompts (leave --rewards out to sample only)"
        )
    if question is not None:
        warn_of_few_prompts(question, prompts, rewards)


def warn_of_few_prompts(criteria: "Criteria", prompts: int, rewards: Mapping[str, str] | None = None) -> None:
    """Tell before sampling which guards no lam above 0 could be shown to keep, however clean the data.

    ``rewards`` says how those that aren't found by their names are found.
    """
    from deradiff.analysis.guards import least_prompts
    from deradiff.analysis.messages import few_prompts_message
    from deradiff.rewards import card_of, load_reward

    for guard in criteria.guards:
        card = card_of(load_reward((rewards or {}).get(guard.reward, guard.reward)))
        if not guard.relative or guard.margin is None or (card is not None and card.floor != 0):
            continue
        least = least_prompts(guard.margin, criteria.risk)
        if prompts < least:
            where = "" if card is not None else f"if {guard.reward} counts (0 or 1 an image), "
            sentence = few_prompts_message(guard.reward, prompts, least, criteria.risk)
            echo(f"Note: {where}{sentence}", err=True)
