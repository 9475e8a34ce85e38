"""Synthetic sweeps whose true curves are known."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deradiff.results import Results

LAMS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
RISE = 1 - np.exp(-np.array(LAMS))
COLLAPSE = -np.clip(np.array(LAMS) - 1, 0, None)


def results(
    curves: Mapping[str, NDArray[np.float64]],
    *,
    lams: tuple[float, ...] = LAMS,
    prompts: int = 8,
    seeds: int = 4,
    noise: float = 0.05,
    rng_seed: int = 0,
    level: float = 1.0,
    path_kl: NDArray[np.float64] | None = None,
) -> Results:
    """Scores around known curves (L,): a level a prompt, of this spread, a change a (prompt, lam), noise an image."""
    rng = np.random.default_rng(rng_seed)
    shape = (prompts, seeds, len(lams))
    scores = {
        name: curve
        + level * rng.normal(size=(prompts, 1, 1))
        + noise * rng.normal(size=(prompts, 1, len(lams)))
        + noise * rng.normal(size=shape)
        for name, curve in curves.items()
    }
    return Results(
        prompts=tuple(f"prompt {p}" for p in range(prompts)),
        seeds=tuple(range(seeds)),
        lams=lams,
        scores=scores,
        images=np.full(shape, "x.png", dtype=object),
        path_kl=None if path_kl is None else np.broadcast_to(path_kl, shape),
        anchor_beta=0.1,
    )
