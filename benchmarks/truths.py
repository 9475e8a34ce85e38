"""Synthetic rewards whose true change along lam is known, and the pool with its prompts drawn anew.

A guard's mean falls from 1 (0.9 for counts) by a share of it that passes the margin between two lams of the grid, just
beyond the first: what is hardest to tell. Images of a pair share half of their noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pool import SHAPE

Floats = NDArray[np.float64]

LAMS = tuple(np.linspace(0, 1, 9).tolist())
LAST_HELD = 3  # index of the right lam: the loss is 1.02 margins at the next one
COUNTS = ("binary", "five levels")
FEW = 0.3  # share of prompts that carry all of a loss, where few do


@dataclass(frozen=True)
class Truth:
    """A guard.

    Attributes:
        kind: distribution of scores: gaussian, t3, exponential, binary, five levels.
        shape: of the fall along lam: linear or quadratic.
        prompts: how they react: alike, exponential (some lose much more), few (30 % of them carry all).
        margin: share of the mean at lam = 0.
        seeds: images a prompt.
    """

    kind: str
    shape: str
    prompts: str
    margin: float
    seeds: int

    @property
    def counts(self) -> bool:
        return self.kind in COUNTS

    @property
    def level(self) -> float:
        return 0.9 if self.counts else 1.0

    def loss(self) -> Floats:
        """The true loss at each lam, as a share of the mean at lam = 0; (L,)."""
        power = {"linear": 1, "quadratic": 2}[self.shape]
        return 1.02 * self.margin * (np.array(LAMS) / LAMS[LAST_HELD + 1]) ** power

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Scores (count, S, L) of fresh prompts and seeds."""
        loss = self._factor(count, rng)[:, None, None] * self.loss()
        if self.counts:
            return self._drawn_counts(np.clip(self.level * (1 - loss), 0, 1), rng)
        shape = (count, self.seeds, len(LAMS))
        shared, own = (0.3 * _noise(self.kind, size, rng) for size in ((*shape[:2], 1), shape))
        own[..., 0] = 0
        return 1 + 0.2 * rng.normal(size=(count, 1, 1)) + shared + 0.5 * own - loss

    def _factor(self, count: int, rng: np.random.Generator) -> Floats:
        """How strongly each prompt loses, 1 on average."""
        if self.prompts == "alike":
            return np.ones(count)
        if self.prompts == "exponential":
            return rng.exponential(size=count)
        return (rng.random(count) < FEW) / FEW

    def _drawn_counts(self, probability: Floats, rng: np.random.Generator) -> Floats:
        trials = 1 if self.kind == "binary" else 4
        shape = (len(probability), self.seeds, len(LAMS), trials)
        same = np.broadcast_to(rng.random((*shape[:2], 1, trials)), shape)
        uniform = np.where(rng.random(shape) < 0.5, same, rng.random(shape))
        return (uniform < probability[..., None]).mean(axis=-1)


def _noise(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Of mean 0 and standard deviation 1; exponential noise has its long tail below."""
    if kind == "gaussian":
        return rng.normal(size=shape)
    if kind == "t3":
        return rng.standard_t(3, size=shape) / np.sqrt(3)
    return 1 - rng.exponential(size=shape)


def from_pool(table: Floats, count: int, seeds: int, rng: np.random.Generator, every: int = 4) -> tuple[Floats, ...]:
    """Scores (count, seeds, L) of prompts drawn anew from the pool's, each with fresh seeds, on every so many lams."""
    rows = rng.integers(SHAPE[0], size=count)
    columns = np.argsort(rng.random((count, SHAPE[1])), axis=1)[:, :seeds]
    return tuple(part[rows[:, None], columns][:, :, ::every] for part in table)
