"""A cache of scores by published models, shared by all runs of a user.

It is ``scores.sqlite`` in the folder ``DERADIFF_CACHE``, by default ``~/.cache/deradiff``. Processes may share it, and
it may be deleted at any time. A `Scorer` with published weights is cached; other functions may change, and are not.
"""

import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from deradiff.errors import RewardError
from deradiff.rewards import Reward
from deradiff.rewards.scorer import Scorer

FOLDER = "DERADIFF_CACHE"  # environment variable
_TIMEOUT = 60  # seconds to wait for another process that writes
_TABLE = """CREATE TABLE IF NOT EXISTS scores
    (reward TEXT, image TEXT, prompt TEXT, score REAL NOT NULL, PRIMARY KEY (reward, image, prompt)) WITHOUT ROWID"""


class ImageKey(NamedTuple):
    """What a score is of: the sha256 of an image's file, and a prompt."""

    sha256: str
    prompt: str


def read_scores(reward: Reward, images: Sequence[ImageKey]) -> list[float | None]:
    """The scores that are in the cache; None for others.

    Raises:
        RewardError: the cache can't be read.
    """
    identity = identity_of(reward)
    if identity is None or not images:
        return [None] * len(images)
    with _open_cache() as cache:
        return [_look_up(cache, identity, image) for image in images]


def write_scores(reward: Reward, scores: Mapping[ImageKey, float]) -> None:
    """Put scores into the cache, if the reward's are cached.

    Raises:
        RewardError: the cache can't be written.
    """
    identity = identity_of(reward)
    if identity is None:
        return
    with _open_cache() as cache:
        rows = [(identity, *image, score) for image, score in scores.items()]
        cache.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)


def identity_of(reward: Reward) -> str | None:
    """The key of a published model's scores; None for a reward that is not cached."""
    if not isinstance(reward, Scorer) or reward.source is not None or reward.card.model in ("", "none"):
        return None
    # weights, precision and version of this code determine the scores
    return f"{reward.card.name}; {reward.card.model}; {reward.dtype}; deradiff {version('deradiff')}"


def _look_up(cache: sqlite3.Connection, identity: str, image: ImageKey) -> float | None:
    key = (identity, *image)
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
