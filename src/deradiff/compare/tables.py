"""The tables of a comparison, from its run folders: paired scores and image distances."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deradiff.compare.aligned import Aligned
from deradiff.compare.optimum import RETRAINED, Optimum, compute_optimum
from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS, Table
from deradiff.compare.run import Runs
from deradiff.compare.statistics import Scores, rows, seed_noise, spread
from deradiff.errors import ResultsError
from deradiff.mixture import lam_from_beta
from deradiff.reading import decode_image, read_whole
from deradiff.results import Results

Files = NDArray[np.object_]
Group = list[tuple[Aligned, Results]]  # the retrained models of one beta


def tables(runs: Runs, rewards: Sequence[str]) -> Iterator[Table]:
    """A table for each anchor, scheduler and reward, in this order; rewards vary fastest.

    Raises:
        RunFolderError: a run is incomplete.
        ResultsError: scores or images are missing.
    """
    for anchor in runs.comparison.anchors:
        for scheduler in runs.comparison.schedulers:
            yield from _tables(runs, rewards, anchor, scheduler)


def _tables(runs: Runs, rewards: Sequence[str], anchor: Aligned, scheduler: str | None) -> Iterator[Table]:
    comparison = runs.comparison
    groups = _retrained_groups(runs, scheduler)
    columns = _arm_columns(runs, anchor, scheduler)
    images = {arm: [_column(results, results.images, lam) for lam in lams] for arm, (results, lams) in columns.items()}
    retrained_images = [[results.images[:, :, 0] for _, results in group] for group in groups]
    distances, seed_distance = _image_distances(images, retrained_images)
    pool = runs.results(comparison.pool(scheduler)) if comparison.optimum else None
    for reward in rewards:
        scores = _scores(comparison.betas, groups, columns, reward, anchor.seed)
        yield Table(
            anchor=anchor.name,
            anchor_beta=anchor.beta,
            scheduler=scheduler,
            reward=reward,
            prompts=len(columns[DERADIFF][0].prompts),
            betas=comparison.betas,
            retrained_means=tuple(tuple(table.mean(axis=(1, 2)).tolist()) for table in scores.retrained),
            spread=spread(scores),
            seed_noise=seed_noise(scores),
            image_distances=distances,
            seed_image_distance=seed_distance,
            own_model=anchor in comparison.retrained,
            rows=tuple(rows(scores)),
            optimum=None if pool is None else _optimum(pool, rewards[0], reward, scores),
        )


def _retrained_groups(runs: Runs, scheduler: str | None) -> list[Group]:
    comparison = runs.comparison
    return [
        [
            (model, runs.results(comparison.retrained_arm(model, scheduler)))
            for model in comparison.retrained
            if model.beta == beta
        ]
        for beta in comparison.betas
    ]


def _arm_columns(runs: Runs, anchor: Aligned, scheduler: str | None) -> dict[str, tuple[Results, list[float]]]:
    """For each arm its results and, by beta, the lam that emulates it."""
    comparison = runs.comparison
    deradiff = runs.results(comparison.deradiff(anchor, scheduler))
    weights = runs.results(comparison.weights(anchor, scheduler))
    lams = [lam_from_beta(anchor.beta, beta) for beta in comparison.betas]
    return {
        DERADIFF: (deradiff, lams),
        WEIGHTS: (weights, lams),
        ANCHOR: (deradiff, [1.0] * len(lams)),
        REFERENCE: (deradiff, [0.0] * len(lams)),
    }


def _scores(
    betas: tuple[float, ...],
    groups: list[Group],
    columns: Mapping[str, tuple[Results, list[float]]],
    reward: str,
    seed: int,
) -> Scores:
    return Scores(
        betas=betas,
        retrained=tuple(np.stack([results.scored(reward)[:, :, 0] for _, results in group]) for group in groups),
        arms={
            arm: np.stack([_column(results, results.scored(reward), lam) for lam in lams])
            for arm, (results, lams) in columns.items()
        },
        same_seed=_same_seed_indices(groups, seed),
    )


def _same_seed_indices(groups: list[Group], seed: int) -> tuple[int, ...]:
    seeds = [[model.seed for model, _ in group] for group in groups]
    return tuple(group.index(seed) for group in seeds) if all(seed in group for group in seeds) else ()


def _optimum(pool: Results, objective: str, reward: str, scores: Scores) -> Optimum:
    objective_scores, reward_scores = (pool.scored(name)[:, :, 0] for name in (objective, reward))
    arms = {RETRAINED: list(scores.retrained)} | {arm: list(table) for arm, table in scores.arms.items()}
    return compute_optimum(objective, scores.betas, objective_scores, reward_scores, arms)


def _column(results: Results, table: Any, lam: float) -> Any:
    return table[:, :, results.lams.index(lam)]


def _image_distances(
    arms: dict[str, list[Files]], retrained: list[list[Files]]
) -> tuple[dict[str, tuple[float, ...]], float | None]:
    """By beta, the distance of each arm to the retrained models; and the mean distance between two of these."""
    by_beta: list[dict[str, float]] = []
    between_seeds: list[float] = []
    for index, group in enumerate(retrained):
        seeds = {f"seed {number}": files for number, files in enumerate(group)}
        files_by_arm = {arm: files[index] for arm, files in arms.items()}
        seed_pairs = list(combinations(seeds, 2))
        arm_pairs = [(arm, seed) for arm in files_by_arm for seed in seeds]
        distances = rms_distances({**files_by_arm, **seeds}, [*arm_pairs, *seed_pairs])
        by_beta.append({arm: float(np.mean([distances[arm, seed] for seed in seeds])) for arm in files_by_arm})
        between_seeds += [float(np.mean([distances[pair] for pair in seed_pairs]))] if seed_pairs else []
    by_arm = {arm: tuple(distances[arm] for distances in by_beta) for arm in arms}
    return by_arm, float(np.mean(between_seeds)) if between_seeds else None


def rms_distances(files: Mapping[str, Files], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Mean over images of the RMS difference over pixels and channels, in [0, 1], for each pair of arms.

    Args:
        files: arm -> paths ``[prompts, seeds]`` of its images; images at one index share their noise.
        pairs: of arms.

    Raises:
        ResultsError: an image can't be read, or the sizes differ.
    """
    sums, shape = dict.fromkeys(pairs, 0.0), next(iter(files.values())).shape
    for index in np.ndindex(shape):
        pixels = {arm: _read_pixels(str(table[index])) for arm, table in files.items()}
        if len(shapes := {image.shape for image in pixels.values()}) > 1:
            raise ResultsError(f"images of one comparison have several sizes, {shapes}; give another --out")
        for one, other in pairs:
            sums[one, other] += float(np.sqrt(np.mean(np.square(pixels[one] - pixels[other]))))
    return {pair: total / np.prod(shape).item() for pair, total in sums.items()}


def _read_pixels(file: str) -> NDArray[np.floating[Any]]:
    content = read_whole(Path(file), "the image", ResultsError)
    image = decode_image(content, f"the image {file}", ResultsError)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255
