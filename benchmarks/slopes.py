"""What reweighting could add to a search: the slope of a reward along lam from images at one lam alone.

    python benchmarks/slopes.py

With L and Q of a path, the score function of mixing step by step is, in continuous time, d/dlam log p =
L + (1 - 2 lam) Q / 2, so the slope is the mean of (score - its prompt's mean over the other seeds) times that
(Williams 1992): no image at another lam is needed. The sampler has 20 steps, though, the last without noise. Beside it
stands the slope by pairs at lam - 1/16 and lam + 1/16, of the 32 prompts x 24 seeds of benchmarks/results/pool.parquet
(benchmarks/pool.py), and what an image tells by reweighting, in images paired over 1/4.
"""

import numpy as np
from pool import SHAPE, table
from rich.console import Console
from rich.table import Table

LAST, NEAR, FAR = SHAPE[2] - 1, 2, 4  # steps of the grid to either side


def by_reweighting(scores: np.ndarray, log_ratio: np.ndarray, q: np.ndarray, lam: float) -> np.ndarray:
    """A slope an image, (P, S)."""
    others = (scores.sum(axis=1, keepdims=True) - scores) / (scores.shape[1] - 1)
    return (scores - others) * (log_ratio + (1 - 2 * lam) * q / 2)


def by_pairs(scores: np.ndarray, place: int, steps: int) -> np.ndarray:
    return (scores[:, :, place + steps] - scores[:, :, place - steps]) * LAST / (2 * steps)


def error(slopes: np.ndarray) -> float:
    """Standard error of the mean over images, the prompts held fixed."""
    return float(np.sqrt(slopes.var(axis=1, ddof=1).mean() / slopes.size))


def main() -> None:
    pool, shown = table(), Table("reward", "lam", "by reweighting", "by pairs", "apart by", "an image is worth")
    for reward in ("warmth", "faithfulness"):
        for place in range(4, LAST, 4):
            lam, paths = place / LAST, (pool[name][:, :, place] for name in ("implicit_reward", "q"))
            told = by_reweighting(pool[reward][:, :, place], *paths, lam)
            near, far = (by_pairs(pool[reward], place, steps) for steps in (NEAR, FAR))
            shown.add_row(
                reward,
                f"{lam:g}",
                *(f"{own.mean():+.2f} ± {error(own):.2f}" for own in (told, near)),
                f"{(told.mean() - near.mean()) / error(told - near):+.1f} errors",
                f"{2 * (error(far) / error(told)) ** 2:.2f} images",
            )
    Console(width=100).print(shown)


if __name__ == "__main__":
    main()
