"""Scores of which every figure is known beforehand."""

from typing import Any

import numpy as np

from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS, Table
from deradiff.compare.statistics import Scores, rows, seed_noise, spread

BETAS = (0.25, 0.5, 1.0, 2.0, 8.0, 16.0)
BETA0 = 1.0
PROMPTS, SEEDS = 6, 4


def scores(
    errors: dict[str, list[float]], *, means: tuple[float, ...] = (5, 4, 3, 2, 1, 0), seed_gap: float = 0.5
) -> Scores:
    """Two training seeds a beta, ``seed_gap`` apart around the means; arms off by known errors; all share one noise."""
    noise = np.random.default_rng(0).normal(size=(PROMPTS, SEEDS))
    base = np.array(means, dtype=float)[:, None, None] + noise
    return Scores(
        betas=BETAS[: len(means)],
        retrained=tuple(np.stack([table - seed_gap / 2, table + seed_gap / 2]) for table in base),
        arms={arm: base + np.array(off)[:, None, None] for arm, off in errors.items()},
    )


def table(own: Scores | None = None, **changes: Any) -> Table:
    """The table of an anchor at beta 1; DeRaDiff errs most at the lowest beta, which is beyond its ranges but one."""
    nothing = [0.0] * len(BETAS)
    known = {DERADIFF: [1.5, 0.2, 0.0, -0.1, 0.05, 3.0], WEIGHTS: [0.0, 0, 0.3, 0, 0, 0]}
    own = own or scores({**known, ANCHOR: nothing, REFERENCE: nothing})
    made: dict[str, Any] = {
        "anchor": "mine",
        "anchor_beta": BETA0,
        "scheduler": "DDIMScheduler",
        "reward": "warmth",
        "prompts": PROMPTS,
        "betas": own.betas,
        "retrained_means": tuple(tuple(t.mean(axis=(1, 2)).tolist()) for t in own.retrained),
        "spread": spread(own),
        "seed_noise": seed_noise(own),
        "image_distances": {arm: tuple(0.1 * place for place in range(len(own.betas))) for arm in own.arms},
        "seed_image_distance": 0.2,
        "own_model": False,
        "rows": tuple(rows(own)),
    }
    return Table(**{**made, **changes})
