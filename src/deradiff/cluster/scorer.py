"""Scores batches of images on a cluster."""

from collections.abc import Callable, Iterator
from typing import Any

from deradiff.cluster.pool import Done, Pool, map_unordered
from deradiff.cluster.scoring_job import Unavailable
from deradiff.errors import RewardUnavailableError
from deradiff.runs.batch_scores import Batch, BatchScores


def score_on(start: Callable[[], Pool], batches: Iterator[Batch], tries: int) -> Iterator[tuple[Batch, BatchScores]]:
    """Score batches on the workers of a pool, which do a `ScoringJob`; arguments as of `map_unordered`.

    A batch stays whole, so that a network sees what it sees in one process. A reward that fails on an image says so in
    the batch's scores; only what no worker survives is given up.

    Raises:
        RewardUnavailableError: the reward can score nothing at present.
        ClusterError: no worker can load the reward, or nothing but errors comes of the work.
    """
    for result in map_unordered(start, batches, tries, _check_available):
        (batch,) = result.items
        yield batch, result.value if isinstance(result, Done) else _no_scores(batch, result.error)


def _check_available(value: Any) -> BatchScores:
    if isinstance(value, Unavailable):
        raise RewardUnavailableError(value.reason)
    return value


def _no_scores(batch: Batch, error: str) -> BatchScores:
    count = len(batch.images)
    return BatchScores((None,) * count, dict.fromkeys(range(count), error))
