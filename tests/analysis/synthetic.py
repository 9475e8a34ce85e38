"""Synthetic sweeps whose true curves are known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deradiff.results import Results

Floats = NDArray[np.float64]

LAMS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
RISE = 1 - np.exp(-np.array(LAMS))
COLLAPSE = -np.clip(np.array(LAMS) - 1, 0, None)


def table(scores: Mapping[str, Floats], lams: ArrayLike, **rest: Any) -> Results:
    """Results of scores (P, S, L) as they are."""
    prompts, seeds, _ = next(iter(scores.values())).shape
    names = [f"prompt {p}" for p in range(prompts)]
    return Results(
        prompts=names, seeds=range(seeds), lams=np.asarray(lams, dtype=float).tolist(), scores=scores, **rest
    )


def sweep(
    curves: Mapping[str, ArrayLike],
    *,
    lams: Sequence[float] = LAMS,
    prompts: int = 12,
    seeds: int = 4,
    noise: float = 0.05,
    level: float = 1.0,
    rng_seed: int = 0,
    path_kl: ArrayLike | None = None,
    **rest: Any,
) -> Results:
    """Scores around known curves (L,): a level a prompt, of this spread, a change a (prompt, lam), noise an image."""
    rng = np.random.default_rng(rng_seed)
    shape = (prompts, seeds, len(lams))
    scores = {
        name: np.asarray(curve)
        + level * rng.normal(size=(prompts, 1, 1))
        + noise * rng.normal(size=(prompts, 1, len(lams)))
        + noise * rng.normal(size=shape)
        for name, curve in curves.items()
    }
    kl = None if path_kl is None else np.broadcast_to(np.asarray(path_kl, dtype=float), shape)
    return table(scores, lams, path_kl=kl, anchor_beta=0.1, **rest)


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Noise of mean 0 and standard deviation 1."""
    if kind == "exponential":
        return rng.exponential(size=shape) - 1
    if kind == "mirrored":
        return 1 - rng.exponential(size=shape)
    if kind == "lonely":  # a tenth of prompts by +3, all others by -1/3
        return np.where(rng.random(shape) < 0.1, 3.0, -1 / 3)
    return rng.normal(size=shape)


def falling(rng: np.random.Generator, prompts: int, lams: ArrayLike, *, kind: str, slope: float = 0.2) -> Floats:
    """A guard (P, 1, L) whose true mean falls by ``slope`` a unit of lam; ``binary`` from 0.9 on."""
    way = np.asarray(lams, dtype=float)
    if kind == "binary":
        return (rng.random((prompts, 1, 1)) < 0.9 - slope * way).astype(float)  # the same draw: pairs, as images are
    steep = slope * (1 + 0.5 * noise(kind, rng, (prompts, 1, 1)))  # prompts fall unlike
    level = 3 + rng.normal(size=(prompts, 1, 1))
    return level - steep * way + 0.05 * rng.normal(size=(prompts, 1, len(way))) * (way > 0)


def share_above(limit: float, runs: int) -> float:
    """The largest share of runs that a probability of ``limit`` explains, at 4 standard errors."""
    return limit + 4 * float(np.sqrt(limit * (1 - limit) / runs))
