"""From the run folders of a comparison to its tables."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from deradiff.compare.aligned import Aligned
from deradiff.compare.images import Files, rms_distances
from deradiff.compare.optimum import SCRATCH, Optimum, optimum
from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS, Table
from deradiff.compare.run import Runs
from deradiff.compare.statistics import Scores, rows, seed_noise, spread
from deradiff.mixture import lam_from_beta
from deradiff.results import Results

Group = list[tuple[Aligned, Results]]  # the models from scratch of one beta


def tables(runs: Runs, rewards: Sequence[str]) -> Iterator[Table]:
    """A table for each anchor, scheduler and reward, in the order given, rewards turning fastest.

    Raises:
        RunFolderError: a run isn't finished.
        ResultsError: scores or images are missing.
    """
    comparison = runs.comparison
    for anchor in comparison.anchors:
        for scheduler in comparison.schedulers:
            yield from _tables(runs, rewards, anchor, scheduler)


def _tables(runs: Runs, rewards: Sequence[str], anchor: Aligned, scheduler: str | None) -> Iterator[Table]:
    comparison = runs.comparison
    betas = comparison.betas

    groups: list[Group] = [
        [
            (model, runs.results(comparison.from_scratch(model, scheduler)))
            for model in comparison.scratch
            if model.beta == beta
        ]
        for beta in betas
    ]
    realigned, weights = (
        runs.results(comparison.deradiff(anchor, scheduler)),
        runs.results(comparison.weights(anchor, scheduler)),
    )
    lams = [lam_from_beta(anchor.beta, beta) for beta in betas]
    columns = {
        DERADIFF: (realigned, lams),
        WEIGHTS: (weights, lams),
        ANCHOR: (realigned, [1.0] * len(betas)),
        REFERENCE: (realigned, [0.0] * len(betas)),
    }
    images = {arm: [_column(own, own.images, lam) for lam in at] for arm, (own, at) in columns.items()}
    pool = runs.results(comparison.pool(scheduler)) if comparison.optimum else None
    distances, between_seeds = _distances(images, [[own.images[:, :, 0] for _, own in group] for group in groups])
    for reward in rewards:
        scores = Scores(
            betas=betas,
            scratch=tuple(np.stack([own.scored(reward)[:, :, 0] for _, own in group]) for group in groups),
            arms={
                arm: np.stack([_column(own, own.scored(reward), lam) for lam in at])
                for arm, (own, at) in columns.items()
            },
            same_seed=_same_seed(groups, anchor.seed),
        )
        yield Table(
            anchor=anchor.name,
            anchor_beta=anchor.beta,
            scheduler=scheduler,
            reward=reward,
            prompts=len(realigned.prompts),
            betas=betas,
            scratch_means=tuple(tuple(table.mean(axis=(1, 2)).tolist()) for table in scores.scratch),
            spread=spread(scores),
            seed_noise=seed_noise(scores),
            image_distances=distances,
            seed_image_distance=between_seeds,
            own_model=anchor in comparison.scratch,
            rows=tuple(rows(scores)),
            optimum=None if pool is None else _optimum(pool, rewards[0], reward, scores),
        )


def _same_seed(groups: list[Group], seed: int) -> tuple[int, ...]:
    seeds = [[model.seed for model, _ in group] for group in groups]
    return tuple(own.index(seed) for own in seeds) if all(seed in own for own in seeds) else ()


def _optimum(pool: Results, objective: str, reward: str, scores: Scores) -> Optimum:
    first, own = (pool.scored(name)[:, :, 0] for name in (objective, reward))
    arms = {SCRATCH: list(scores.scratch)} | {arm: list(table) for arm, table in scores.arms.items()}
    return optimum(objective, scores.betas, first, own, arms)


def _column(results: Results, table: Any, lam: float) -> Any:
    return table[:, :, results.lams.index(lam)]


def _distances(
    arms: dict[str, list[Files]], scratch: list[list[Files]]
) -> tuple[dict[str, tuple[float, ...]], float | None]:
    """Of every arm to the models from scratch, by beta; and between two of these at one beta."""
    by_beta: list[dict[str, float]] = []
    between: list[float] = []
    for place, group in enumerate(scratch):
        seeds = {f"seed {number}": files for number, files in enumerate(group)}
        own = {arm: files[place] for arm, files in arms.items()}
        apart = list(combinations(seeds, 2))
        found = rms_distances({**own, **seeds}, [*((arm, seed) for arm in own for seed in seeds), *apart])
        by_beta.append({arm: float(np.mean([found[arm, seed] for seed in seeds])) for arm in own})
        between += [float(np.mean([found[pair] for pair in apart]))] if apart else []
    distances = {arm: tuple(found[arm] for found in by_beta) for arm in arms}
    return distances, float(np.mean(between)) if between else None
