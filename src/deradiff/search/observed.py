"""What a search has sampled: at each lam the first prompts and the first seeds, some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deradiff.results import Results

Floats = NDArray[np.float64]


class Rectangle(NamedTuple):
    """Some prompts and seeds, by place, at some lams, by place on the grid: what one round samples."""

    prompts: range
    seeds: range
    lams: tuple[int, ...]

    @property
    def images(self) -> int:
        """How many images."""
        return len(self.prompts) * len(self.seeds) * len(self.lams)


@dataclass(frozen=True)
class Observed:
    """Scores of all rounds so far on the full grid, nan where nothing was sampled.

    Attributes:
        tables: reward name -> (P, S, G); ``path_kl`` among them where it is known.
        known: whether an image was sampled, (P, S, G).
    """

    tables: dict[str, Floats]
    known: NDArray[np.bool_]

    @property
    def used(self) -> tuple[int, int]:
        """How many prompts and seeds have been sampled at all."""
        return int(self.known.any(axis=(1, 2)).sum()), int(self.known.any(axis=(0, 2)).sum())

    @property
    def lams(self) -> list[int]:
        """Places of the lams that have been sampled at all."""
        return np.flatnonzero(self.known.any(axis=(0, 1))).tolist()

    def prompt_means(self, name: str) -> Floats:
        """Each prompt's mean change to lam = 0 over its seeds, (P, G), nan where it has none."""
        changes = self.tables[name] - self.tables[name][:, :, [0]]
        counts = np.isfinite(changes).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.nansum(changes, axis=1) / np.where(counts, counts, np.nan)


def observed(shape: tuple[int, int, int], rounds: Sequence[tuple[Rectangle, Results]]) -> Observed:
    """Rounds put together on the full grid (P, S, G), with the rewards that all of them are scored with."""
    names = [name for name in rounds[0][1].scores if all(name in results.scores for _, results in rounds)]
    if all(results.path_kl is not None for _, results in rounds):
        names.append("path_kl")
    tables, known = {name: np.full(shape, np.nan) for name in names}, np.zeros(shape, bool)
    for rectangle, results in rounds:
        place = np.ix_(rectangle.prompts, rectangle.seeds, rectangle.lams)
        known[place] = True
        for name in names:
            tables[name][place] = results.path_kl if name == "path_kl" else results.scored(name)
    return Observed(tables, known)
