"""A search in a run's folder: samples and scores what is missing of each block."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from deradiff.analysis.criteria import Criteria
from deradiff.errors import ConfigError, PartialScoresError, first_few
from deradiff.results import Results
from deradiff.rewards import check_distinct, check_prompts, load_reward, reward_name, unscorable_prompts
from deradiff.rewards.group_metrics import GroupMetric
from deradiff.runs.cells import Request
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.scoring import score
from deradiff.search.acquisition import SampleBlock
from deradiff.search.search import SearchResult, check_start, search
from deradiff.search.settings import Settings, make_grid
from deradiff.search.state import SearchState, read_state, write_state

T = TypeVar("T")


def search_run(
    run: Run,
    settings: Settings,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    guidance: float | None = None,
    rewards: Sequence[str] = (),
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> SearchResult:
    """Find lam in a run with few images, counting those that it has already.

    Args:
        run: to sample into.
        settings: the question.
        prompts: two or more.
        seeds: of a prompt, at most.
        guidance: at which to sample.
        rewards: more to score, as ``load_reward`` takes them, which the hacking alarm watches.
        device: where scorers run.
        report: called with a line about each block before it is sampled.

    Raises:
        ConfigError: a single prompt, fewer images allowed than the initial design takes, or a reward that compares
            images with each other.
        RewardError: an unknown reward, or one that can't score some of the new prompts.
        RunFolderError: the folder can't be written.
    """
    names = rewards_to_score(settings.criteria, rewards)
    axes = _resume(run, settings, names, prompts, seeds, guidance, report)
    check_start(settings, len(axes[0]), axes[2])
    state = SearchState(max_lam=settings.max_lam, prompts=tuple(axes[0]), seeds=tuple(axes[1]))
    with run.block_sampler() as sampler:

        def sample(block: SampleBlock) -> Results:
            (request,) = run.requests(
                [axes[0][index] for index in block.prompts],
                [axes[1][index] for index in block.seeds],
                [axes[2][index] for index in block.lams],
                [guidance],
            )
            if missing := run.cost([request]).missing:
                report(_describe(request, missing))
            write_state(run.folder, state)  # before sampling: stopped there, it goes on with the same prompts and seeds
            run.sample_requests([request], sampler=sampler, progress=lambda count: None)
            for name in names:
                try:
                    score(run.store, name, device=device)
                except PartialScoresError as error:  # prompts that were left out don't matter
                    if error.prompts.intersection(axes[0]):
                        raise
            return load_results(run.store, guidance).on_axes(*axes, map(reward_name, names))

        return search(settings, axes[2], len(axes[0]), sample)


def _resume(
    run: Run,
    settings: Settings,
    names: Sequence[str],
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float | None,
    report: Callable[[str], None],
) -> tuple[list[str], list[int], list[float]]:
    """Prompts, seeds and lams in the order of an earlier search, whose last block is finished if it was stopped.

    Prompts that a reward can't score, or failed on before, are left out: a search would ask for them again and again.
    """
    state = read_state(run.folder)
    if state is not None:
        prompts, seeds = _in_order(prompts, state.prompts), _in_order(seeds, state.seeds)
        run.sample_requests(run.store.requests()[-1:], progress=lambda count: None)
    prompts = _scorable(run, names, prompts, report)
    guidances = {guidance for record in run.store.records() for _, _, guidance, _ in record.cells}
    earlier = load_results(run.store, guidance) if guidance in guidances else None
    if earlier is not None:
        scored = [name for name in map(reward_name, names) if name in earlier.scores]
        prompts = _leave_out(prompts, {text for name in scored for text in earlier.unscored_prompts(name)}, report)
    return _axes(settings, prompts, seeds, earlier)


def rewards_to_score(criteria: Criteria, more: Sequence[str] = ()) -> list[str]:
    """What to score: more rewards, as ``load_reward`` takes them, and those of the criteria that aren't among them.

    Raises:
        ConfigError: one that compares images with each other.
        RewardError: an unknown one.
    """
    check_distinct(more)
    names = [*more, *(name for name in criteria.rewards if name not in map(reward_name, more))]
    for name in names:
        if isinstance(load_reward(name), GroupMetric):
            raise ConfigError(
                f"{name} compares images with each other, and a search samples few of them; use deradiff sweep"
            )
    return names


def _scorable(run: Run, names: Sequence[str], prompts: Sequence[str], report: Callable[[str], None]) -> list[str]:
    """The prompts that every reward can score; of those that the run has already, others are left out.

    Raises:
        RewardError: a new prompt that a reward can't score.
    """
    known = {prompt for request in run.store.requests() for prompt in request.prompts}
    left_out = set[str]()
    for name in names:
        reward = load_reward(name)
        check_prompts(reward_name(name), reward, [prompt for prompt in prompts if prompt not in known])
        left_out |= unscorable_prompts(reward, prompts).keys()
    return _leave_out(prompts, left_out, report)


def _leave_out(prompts: Sequence[str], left_out: set[str], report: Callable[[str], None]) -> list[str]:
    if dropped := [prompt for prompt in prompts if prompt in left_out]:
        report(f"left out: {len(dropped)} of {len(prompts)} prompts that can't be scored: {first_few(dropped)}")
    return [prompt for prompt in prompts if prompt not in left_out]


def _axes(
    settings: Settings, prompts: Sequence[str], seeds: Sequence[int], earlier: Results | None
) -> tuple[list[str], list[int], list[float]]:
    """Prompts and seeds, those that were sampled already first; the grid, with the lams that were."""
    if earlier is None:
        return list(prompts), list(seeds), list(settings.grid)
    sampled = np.array(earlier.images != "") | np.any([np.isfinite(table) for table in earlier.scores.values()], axis=0)
    counts = dict(zip(earlier.prompts, sampled.sum(axis=(1, 2)).tolist(), strict=True))
    of_seeds = dict(zip(earlier.seeds, sampled.sum(axis=(0, 2)).tolist(), strict=True))
    return (
        sorted(prompts, key=lambda prompt: -counts.get(prompt, 0)),
        sorted(seeds, key=lambda seed: -of_seeds.get(seed, 0)),
        list(make_grid(settings.max_lam, earlier.lams)),
    )


def _in_order(values: Sequence[T], order: Sequence[T]) -> list[T]:
    """The values that are in ``order`` in that order, and then the others."""
    return [*(value for value in order if value in values), *(value for value in values if value not in order)]


def _describe(request: Request, missing: int) -> str:
    lams, seeds = ", ".join(f"{lam:g}" for lam in request.lams), len(request.seeds)
    return f"lam {lams}, {len(request.prompts)} prompts x {seeds} seed{'s' * (seeds > 1)}: {missing} images to sample"
