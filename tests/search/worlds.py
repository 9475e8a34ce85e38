"""Worlds for a search: every image there could be, of which it sees what it samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deradiff.analysis.criteria import Guard, make_criteria
from deradiff.analysis.limits import Floats
from deradiff.results import Results, RewardInfo
from deradiff.search.acquisition import SampleBlock, initial_design
from deradiff.search.search import SearchResult, search
from deradiff.search.settings import POINTS, Settings, make_grid

PROMPTS, SEEDS = 24, 4
LAMS = tuple(np.linspace(0, 1, POINTS).round(10).tolist())
GRID = np.array(LAMS)
IRREGULAR = make_grid(1.0, (0.1, 1 / 3, 0.51, 0.52, 0.53, 0.54, 0.7))  # as of a run that was swept at these
GOLD = Guard("gold", margin=0.1)


def settings(guards: Sequence[Guard] = (GOLD,), **wanted: Any) -> Settings:
    return Settings(criteria=make_criteria("proxy", guards), **{"interval_width": 1e-6, **wanted})


def smooth(rng: np.random.Generator, shape: tuple[int, ...], x: Floats) -> Floats:
    """PathStatistics of a few waves of random size, 0 at lam = 0."""
    waves = np.stack([np.sin(np.pi * count * x) for count in (0.5, 1, 1.5)])
    return rng.normal(size=(*shape[:2], len(waves))) @ waves


class World:
    """Scores (P, S, G): curves that prompts follow more or less, a level a prompt, noise that goes along with lam.

    The objective rises and the guard falls from lam = 0.4 on by default, so that it holds up to 0.5.
    """

    def __init__(
        self,
        seed: int,
        *,
        proxy: Floats | None = None,
        gold: Floats | None = None,
        lams: Sequence[float] = LAMS,
        prompts: int = PROMPTS,
        noise: float = 0.05,
        quiet: bool = False,  # the guard is no business of the alarm
    ) -> None:
        rng, shape, x = np.random.default_rng(seed), (prompts, SEEDS, len(lams)), np.asarray(lams)
        fall = -np.clip(x - 0.4, 0, None)  # loses 0.1 at lam = 0.5
        self.lams = tuple(lams)
        self.truth: dict[str, Floats] = {
            "proxy": np.asarray(x if proxy is None else proxy, dtype=float),
            "gold": np.asarray(fall if gold is None else gold, dtype=float),
        }
        self.tables: dict[str, Floats] = {}
        for name, curve in self.truth.items():
            changes = curve * (1 + 0.2 * rng.normal(size=(prompts, 1, 1))) + noise * smooth(rng, shape, x)
            self.tables[name] = changes + rng.normal(size=(prompts, 1, 1))
        self.rewards = {"gold": RewardInfo(direction="none")} if quiet else {}
        self.sampled = np.zeros(shape, bool)
        self.asked: list[SampleBlock] = []

    def sample(self, block: SampleBlock) -> Results:
        index = np.ix_(block.prompts, block.seeds, block.lams)
        # what a search begins with may be there already; any other block has something new
        assert block == initial_design(len(self.sampled), self.lams) or not self.sampled[index].all()
        self.asked.append(block)
        self.sampled[index] = True
        return self.known()

    def known(self, sampled: Floats | None = None) -> Results:
        """The whole grid, with gaps."""
        there = self.sampled if sampled is None else sampled
        return replace(self.dense(), scores={name: np.where(there, own, np.nan) for name, own in self.tables.items()})

    def dense(self) -> Results:
        prompts, seeds, _ = self.sampled.shape
        names = [f"prompt {number}" for number in range(prompts)]
        tables = {"scores": self.tables, "rewards": self.rewards}
        return Results(prompts=names, seeds=range(seeds), lams=self.lams, anchor_beta=0.1, **tables)

    def search(self, guards: Sequence[Guard] = (GOLD,), **wanted: Any) -> SearchResult:
        return search(settings(guards, **wanted), self.lams, len(self.sampled), self.sample)

    def loss(self, lam: float) -> float:
        """What the guard truly loses there."""
        return float(-self.truth["gold"][self.lams.index(lam)])
