"""Between which lams a reward falls, rises, or drifts off: a column of paired differences for each question."""

from dataclasses import dataclass

import numpy as np

from deradiff.recommend.curves import prompt_changes
from deradiff.recommend.intervals import Floats
from deradiff.results import Results

TOLERANCE = 0.25  # of the reference's mean, that a metric which should stay may move

Pair = tuple[int, int]  # places of two lams


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Questions to one reward, each whether the mean over prompts of a column is above 0.

    Attributes:
        pairs: places of the two lams that each question is about.
        values: (P, questions), in units of the reward.
    """

    pairs: list[Pair]
    values: Floats


def rises(results: Results, reward: str, places: list[int]) -> Columns:
    """Whether it rises from one lam to a later one, for all such pairs among ``places``."""
    changes, pairs = prompt_changes(results, reward), _pairs(places)
    return Columns(pairs=pairs, values=np.stack([changes[:, b] - changes[:, a] for a, b in pairs], axis=1))


def falls(results: Results, reward: str, places: list[int]) -> Columns:
    """Whether it falls from one lam to a later one, for all such pairs among ``places``."""
    rising = rises(results, reward, places)
    return Columns(pairs=rising.pairs, values=-rising.values)


def drifts(results: Results, reward: str, places: list[int]) -> Columns:
    """Whether it is more than `TOLERANCE` off the reference, the first of ``places``, above or below, by lam."""
    zero, *others = places
    changes = prompt_changes(results, reward)
    room = TOLERANCE * np.abs(results.scores[reward][:, :, zero].mean(axis=1))
    columns = [sign * changes[:, place] - room for sign in (1, -1) for place in others]
    return Columns(pairs=[(zero, place) for place in others] * 2, values=np.stack(columns, axis=1))


def onset(results: Results, reward: str, before: int, after: int) -> float:
    """The lam at which a level and then a straight fall, joined, fit the mean from ``before`` to ``after`` best."""
    lams = np.array(results.lams[before : after + 1])
    means = results.scores[reward][:, :, before : after + 1].mean(axis=(0, 1))
    return float(min(lams[:-1], key=lambda lam: _misfit(np.maximum(lams - lam, 0), means)))


def _pairs(places: list[int]) -> list[Pair]:
    return [(a, b) for number, a in enumerate(places) for b in places[number + 1 :]]


def _misfit(x: Floats, y: Floats) -> float:
    """Sum of squares that a straight line in x leaves of y."""
    design = np.stack([np.ones_like(x), x], axis=1)
    solved, *_ = np.linalg.lstsq(design, y, rcond=None)
    return float(np.square(design @ solved - y).sum())
