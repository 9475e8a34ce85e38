"""Scores by published models, kept for all runs of a user: an image that was scored once isn't scored again."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards import Reward, scores
from deradiff.rewards.scorer import Scorer

FOLDER = "DERADIFF_CACHE"
_WAIT = 60  # seconds for another process to finish writing
_TABLE = """CREATE TABLE IF NOT EXISTS scores
    (reward TEXT, image TEXT, prompt TEXT, score REAL NOT NULL, PRIMARY KEY (reward, image, prompt)) WITHOUT ROWID"""


class Image(NamedTuple):
    """What is scored: pixels (3, H, W) in [0, 1], the sha256 of their file, and a prompt."""

    pixels: Tensor
    sha256: str
    prompt: str


def cached_scores(name: str, reward: Reward, images: Sequence[Image]) -> list[float]:
    """As `scores`; of a published model's, what is in the cache isn't computed, and what isn't is put there.

    The cache is ``scores.sqlite`` in the folder that ``DERADIFF_CACHE`` names, default ``~/.cache/deradiff``. Processes
    may share it; it may be deleted at any time.

    Args:
        name: of the reward, for errors.
        reward: a `Scorer` is cached if its weights are the published ones; any other function may change, and isn't.
        images: of one size.

    Raises:
        RewardError: as `scores`; or the cache can't be read or written.
    """
    identity = identity_of(reward)
    if identity is None:
        return _asked(name, reward, images)
    with _opened() as cache:
        known = [_found(cache, identity, image) for image in images]
    unknown = [image for image, score in zip(images, known, strict=True) if score is None]
    if not unknown:
        return [score for score in known if score is not None]
    new = _asked(name, reward, unknown)
    with _opened() as cache:
        rows = [(identity, image.sha256, image.prompt, score) for image, score in zip(unknown, new, strict=True)]
        cache.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
    rest = iter(new)
    return [next(rest) if score is None else score for score in known]


def identity_of(reward: Reward) -> str | None:
    """What tells a published model's scores from all others; None for a reward whose scores aren't to be kept."""
    if not isinstance(reward, Scorer) or reward.source is not None or reward.card.model in ("", "none"):
        return None
    # other weights, other precision and other code of ours give other scores
    return f"{reward.card.name}; {reward.card.model}; {reward.dtype}; deradiff {version('deradiff')}"


def _asked(name: str, reward: Reward, images: Sequence[Image]) -> list[float]:
    return scores(name, reward, torch.stack([image.pixels for image in images]), [image.prompt for image in images])


def _found(cache: sqlite3.Connection, identity: str, image: Image) -> float | None:
    wanted = (identity, image.sha256, image.prompt)
    row = cache.execute("SELECT score FROM scores WHERE (reward, image, prompt) = (?, ?, ?)", wanted).fetchone()
    return None if row is None else row[0]


@contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The cache, made if missing; what the block changes is kept if it ends well.

    Plain locks, not a write-ahead log: that needs shared memory, which home folders on a network don't have.
    """
    folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "deradiff")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / "scores.sqlite", timeout=_WAIT)) as cache, cache:
            cache.execute(_TABLE)
            yield cache
    except (OSError, sqlite3.Error) as error:
        raise RewardError(
            f"the cache of scores {folder / 'scores.sqlite'} can't be used ({error}); if it is damaged, delete it; if "
            f"it can't be written, set {FOLDER} to a folder that can"
        ) from error
