"""Spot checks of adaptive sampling: some images once more, exactly, to measure and to steer the error."""

import random
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import bootstrap

if TYPE_CHECKING:
    from deradiff.runs.recipe import Recipe
    from deradiff.runs.records import SamplingInfo

_TARGET = 0.01
_FIRST, _SHARE = 4, 1 / 16  # checks at the start, one a block, and then per (prompt, seed)
_PRIOR = 3  # checks' worth of belief that the tolerance is the error
_RANGE = 8.0  # a tolerance stays within this factor of the error aimed at


class SpotChecks:
    """The spot checks of one shard, and the tolerance that they lead to."""

    def __init__(self, recipe: "Recipe") -> None:
        self.target = (recipe.target_error or _TARGET) if recipe.policy == "adaptive" else None
        self.pairs, self.ratios, self.blocks = 0, list[float](), 0

    def update(self, info: "SamplingInfo", images: int) -> None:
        """Learn from a block, in order."""
        self.blocks += 1
        if info.tolerance is not None:
            self.pairs += images // max(1, len(info.lams))
            self.ratios += [check.error / info.tolerance for check in info.spot_checks]

    @property
    def tolerance(self) -> float | None:
        """At which the mean error should be the one aimed at; None where nothing is saved adaptively."""
        if self.target is None:
            return None
        ratio = (_PRIOR + sum(self.ratios)) / (_PRIOR + len(self.ratios))
        return self.target * min(max(1 / ratio, 1 / _RANGE), _RANGE)

    def select(self, images: int) -> int | None:
        """The index of the image of the next block to check; None where enough were checked."""
        if self.target is None or len(self.ratios) >= _FIRST + int(self.pairs * _SHARE):
            return None
        return random.Random(self.blocks).randrange(images)


def estimated_error(errors: list[float]) -> tuple[float, float, float] | None:
    """Mean error of the images, with the 95% bootstrap interval of the mean; None from fewer than three checks."""
    if len(errors) < 3:
        return None
    interval = bootstrap((np.asarray(errors),), np.mean, method="percentile", rng=0).confidence_interval
    return float(np.mean(errors)), float(interval.low), float(interval.high)
