"""Searching for lam with 15 % of a dense grid's images, on the pool. Part of benchmarks/answer.py.

In every repetition, with the seeds in another order, the dense grid is 32 prompts x 4 seeds x 33 lams. The search may
look at 15 % as many images, of any of the 24 seeds. A hit is within 0.1 of the right lam: what the rule takes on all 24
seeds. A violation is a lam at which the pool's own loss exceeds the margin.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from pool import SHAPE, part, table

from deradiff import Guard
from deradiff.analysis.criteria import Criteria
from deradiff.analysis.decide import chosen_index
from deradiff.analysis.limits import Floats
from deradiff.results import Results
from deradiff.search.acquisition import SampleBlock
from deradiff.search.search import search
from deradiff.search.settings import Settings

SEEDS, DENSE_SEEDS, SHARE, CLOSE = SHAPE[1], 4, 0.15, 0.1
MARGINS = (0.1, 0.05, 0.2)
ALL = np.arange(SHAPE[2])
GRID, PROMPTS = ALL / (SHAPE[2] - 1), 24


def question(margin: float) -> Criteria:
    return Criteria(objectives=("warmth",), guards=(Guard("faithfulness", margin=margin, relative=True),))


def one(margin: float, repetition: int) -> dict[str, Any]:
    """One search, and what all that it could have sampled says."""
    pool, prompts, rng = table(), np.arange(SHAPE[0]), np.random.default_rng(repetition)
    seeds = rng.permutation(SHAPE[1])
    dense, criteria = part(pool, prompts, seeds[:DENSE_SEEDS], ALL), question(margin)

    whole, sampled = part(pool, prompts, seeds, ALL), np.zeros(SHAPE, bool)

    def sample(block: SampleBlock) -> Results:
        sampled[np.ix_(block.prompts, block.seeds, block.lams)] = True
        return replace(whole, scores={name: np.where(sampled, own, np.nan) for name, own in whole.scores.items()})

    settings = Settings(criteria=criteria, interval_width=1e-6, max_images=int(SHARE * np.prod(dense.shape)))
    answer = search(settings, whole.lams, SHAPE[0], sample)
    return {
        "lam": answer.recommendation.lam,
        "dense_lam": dense.lams[chosen_index(dense, criteria)],
        "interval": answer.interval,
        "images": float(answer.images / np.prod(dense.shape)),
    }


def summary(margin: float, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all repetitions."""
    pool = table()
    whole = part(pool, np.arange(SHAPE[0]), np.arange(SHAPE[1]), ALL)
    right = whole.lams[chosen_index(whole, question(margin))]
    means = pool["faithfulness"].mean(axis=(0, 1))
    lams, dense = np.array([own["lam"] for own in found]), np.array([own["dense_lam"] for own in found])
    low, high = np.array([own["interval"] for own in found]).T
    lost = np.interp(lams, whole.lams, means) < (1 - margin) * means[0] - 1e-12
    return {
        "margin": margin,
        "right_lam": right,
        "search_hit_rate": float(np.mean(np.abs(lams - right) <= CLOSE + 1e-9)),
        "hit_rate_of_dense_grid": float(np.mean(np.abs(lams - dense) <= CLOSE + 1e-9)),
        "dense_hit_rate": float(np.mean(np.abs(dense - right) <= CLOSE + 1e-9)),
        "search_violation": float(np.mean(lost)),
        "search_image_share": float(np.mean([own["images"] for own in found])),
        "coverage_of_dense_lam": float(np.mean((low <= dense + 1e-9) & (dense <= high + 1e-9))),
        "interval_width": float(np.median(high - low)),
        "mean_lam": float(lams.mean()),
    }


SHAPES: dict[str, Floats] = {
    "two peaks": np.sin(3 * np.pi * GRID) ** 2 * (0.6 + 0.4 * GRID),
    "plateau": np.minimum(3 * GRID, 1),
    "step": (GRID > 0.4).astype(float),
    "flat": 0 * GRID,
    "noise-dominated": 0.1 * GRID,
    "spike of a sixteenth": (np.abs(GRID - 0.6) < 0.03).astype(float),
    "spike of a third": np.exp(-(((GRID - 0.7) / 0.12) ** 2)),
}


def shape(name: str, repetition: int) -> dict[str, Any]:
    """A search on a synthetic objective, with a guard that falls from 0.5 on: its gain, and the largest possible."""
    rng, curve = np.random.default_rng(repetition), SHAPES[name]
    fall = 0.4 * np.clip(GRID - 0.5, 0, None)
    waves = [np.stack([np.sin(np.pi * count * GRID) for count in (0.5, 1, 1.5)]) for _ in range(2)]
    noise = [0.3 * rng.normal(size=(PROMPTS, DENSE_SEEDS, 3)) @ own for own in waves]
    level = rng.normal(size=(PROMPTS, 1, 1))
    scores = {"objective": level + curve + noise[0], "guard": 1 + 0.2 * level - fall + 0.3 * noise[1]}
    whole = Results(prompts=list(map(str, range(PROMPTS))), seeds=range(DENSE_SEEDS), lams=GRID.tolist(), scores=scores)
    sampled = np.zeros(whole.shape, bool)

    def sample(block: SampleBlock) -> Results:
        sampled[np.ix_(block.prompts, block.seeds, block.lams)] = True
        return replace(whole, scores={own: np.where(sampled, table, np.nan) for own, table in scores.items()})

    criteria = Criteria(objectives=("objective",), guards=(Guard("guard", margin=0.1, relative=True),))
    settings = Settings(criteria=criteria, max_images=int(SHARE * sampled.size))
    answer = search(settings, whole.lams, PROMPTS, sample)
    index = whole.lams.index(answer.recommendation.lam)
    held = fall <= 0.1
    return {
        "shape": name,
        "gain": float(curve[index]),
        "best": float(curve[held].max()),
        "violates": bool(not held[index]),
    }


def shape_summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each shape the mean gain as a share of the largest possible, and how often the guard is violated."""
    rows = []
    for name in SHAPES:
        own = [row for row in found if row["shape"] == name]
        best = own[0]["best"]
        gain = float(np.mean([row["gain"] for row in own]))
        violations = float(np.mean([row["violates"] for row in own]))
        rows.append({"shape": name, "share_of_best_gain": gain / best if best else None, "violations": violations})
    return rows
