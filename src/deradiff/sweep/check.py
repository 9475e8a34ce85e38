"""Spot checks of a sweep that saves network calls: some images once more, exactly, to tell and to steer the error."""

import random
from typing import Any, TypedDict

import numpy as np
from scipy.stats import bootstrap

from deradiff.sweep.batches import Batch, Cell
from deradiff.sweep.plan import Plan

_QUALITY = 0.01
_FIRST, _SHARE = 4, 1 / 16  # checks at the start, one a batch, and then per (prompt, seed)
_PRIOR = 3  # checks' worth of belief that the tolerance is the error
_RANGE = 8.0  # a tolerance stays within this factor of the quality asked for


class Check(TypedDict):
    """One image sampled exactly too.

    Attributes:
        cell: prompt, seed, guidance and lam, as indices.
        error: of its final latents, relative, in the Euclidean norm.
        calls: network calls of the exact sampling.
    """

    cell: list[int]
    error: float
    calls: int


class Checks:
    """The spot checks of one shard, and the tolerance that they lead to."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.quality = (plan.quality or _QUALITY) if plan.mode == "adaptive" else None
        self.pairs, self.ratios = 0, list[float]()

    def learn(self, info: dict[str, Any]) -> None:
        """Be told of a batch, in order."""
        self.pairs += info["images"] // len(self.plan.lams)
        self.ratios += [check["error"] / info["tolerance"] for check in info["checks"]]

    @property
    def tolerance(self) -> float | None:
        """At which the mean error should be the quality asked for; None where nothing is saved adaptively."""
        if self.quality is None:
            return None
        ratio = (_PRIOR + sum(self.ratios)) / (_PRIOR + len(self.ratios))
        return self.quality * min(max(1 / ratio, 1 / _RANGE), _RANGE)

    def wanted(self, batch: Batch) -> list[Check]:
        """The image of a batch to check, drawn by its index; none where enough were checked."""
        if self.quality is None or len(self.ratios) >= _FIRST + int(self.pairs * _SHARE):
            return []
        cells: list[Cell] = list(batch.cells(self.plan))
        cell = random.Random(batch.index).choice(cells)
        return [{"cell": list(cell), "error": 0.0, "calls": 0}]


def estimated_error(errors: list[float]) -> tuple[float, float, float] | None:
    """Mean error of the images, with the 95 % bootstrap interval of the mean; None from fewer than three checks."""
    if len(errors) < 3:
        return None
    interval = bootstrap((np.asarray(errors),), np.mean, method="percentile", rng=0).confidence_interval
    return float(np.mean(errors)), float(interval.low), float(interval.high)
