"""A cache of scores by published models, shared by all runs of a user."""

import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards import Reward, compute_scores
from deradiff.rewards.scorer import Scorer

FOLDER = "DERADIFF_CACHE"  # environment variable
_TIMEOUT = 60  # seconds to wait for another process that writes
_TABLE = """CREATE TABLE IF NOT EXISTS scores
    (reward TEXT, image TEXT, prompt TEXT, score REAL NOT NULL, PRIMARY KEY (reward, image, prompt)) WITHOUT ROWID"""


class Image(NamedTuple):
    """An image to score: pixels ``[3, height, width]`` in [0, 1], the sha256 of their file, and a prompt."""

    pixels: Tensor
    sha256: str
    prompt: str


def cached_scores(name: str, reward: Reward, images: Sequence[Image]) -> list[float]:
    """Scores of images as by `compute_scores`, through a cache for published models.

    The cache is ``scores.sqlite`` in the folder ``DERADIFF_CACHE``, by default ``~/.cache/deradiff``. Processes may
    share it, and it may be deleted at any time.

    Args:
        name: of the reward, for error messages.
        reward: a `Scorer` with published weights is cached; other functions may change, and are not.
        images: of one size.

    Raises:
        RewardError: as `compute_scores`; or the cache can't be read or written.
    """
    identity = identity_of(reward)
    if identity is None:
        return _compute(name, reward, images)
    with _open_cache() as cache:
        known = [_look_up(cache, identity, image) for image in images]
    unknown = [image for image, score in zip(images, known, strict=True) if score is None]
    if not unknown:
        return [score for score in known if score is not None]
    new = _compute(name, reward, unknown)
    with _open_cache() as cache:
        rows = [(identity, image.sha256, image.prompt, score) for image, score in zip(unknown, new, strict=True)]
        cache.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
    computed = iter(new)
    return [next(computed) if score is None else score for score in known]


def identity_of(reward: Reward) -> str | None:
    """The key of a published model's scores; None for a reward that is not cached."""
    if not isinstance(reward, Scorer) or reward.source is not None or reward.card.model in ("", "none"):
        return None
    # weights, precision and version of this code determine the scores
    return f"{reward.card.name}; {reward.card.model}; {reward.dtype}; deradiff {version('deradiff')}"


def _compute(name: str, reward: Reward, images: Sequence[Image]) -> list[float]:
    return compute_scores(
        name, reward, torch.stack([image.pixels for image in images]), [image.prompt for image in images]
    )


def _look_up(cache: sqlite3.Connection, identity: str, image: Image) -> float | None:
    key = (identity, image.sha256, image.prompt)
    row = cache.execute("SELECT score FROM scores WHERE (reward, image, prompt) = (?, ?, ?)", key).fetchone()
    return None if row is None else row[0]


@contextmanager
def _open_cache() -> Generator[sqlite3.Connection]:
    """Open the cache, created if missing; changes are committed if the block succeeds.

    It uses plain locks: a write-ahead log needs shared memory, which home folders on a network don't have.
    """
    folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "deradiff")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / "scores.sqlite", timeout=_TIMEOUT)) as cache, cache:
            cache.execute(_TABLE)
            yield cache
    except (OSError, sqlite3.Error) as error:
        raise RewardError(
            f"the cache of scores {folder / 'scores.sqlite'} can't be used ({error}); if it is damaged, delete it; if "
            f"it can't be written, set {FOLDER} to a folder that can"
        ) from error
