"""How often 95 % intervals cover a mean over prompts: prompts redrawn, or prompts and then their seeds.

python benchmarks/resampling.py
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from deradiff.recommend.resample import draw

RUNS, DRAWS = 1000, 1000


def covered(prompts: int, seeds: int, between: float, rng: np.random.Generator) -> tuple[float, float]:
    """Shares of runs in which each kind of interval holds the truth, 0; noise within a prompt is 1."""
    hits = np.zeros(2)
    for run in range(RUNS):
        values = between * rng.normal(size=(prompts, 1)) + rng.normal(size=(prompts, seeds))
        once = draw(prompts, DRAWS, run) @ values.mean(axis=1)
        places = rng.integers(prompts, size=(DRAWS, prompts))
        own = rng.integers(seeds, size=(DRAWS, prompts, seeds))
        twice = values[places[:, :, None], own].mean(axis=(1, 2))
        for kind, means in enumerate((once, twice)):
            low, high = np.quantile(means, (0.025, 0.975))
            hits[kind] += low <= 0 <= high
    return float(hits[0] / RUNS), float(hits[1] / RUNS)


def main() -> None:
    rng = np.random.default_rng(0)
    table = Table("prompts", "seeds", "spread between / within prompts", "prompts redrawn", "and their seeds")
    for prompts, seeds in ((5, 4), (10, 4), (40, 4)):
        for between in (0.0, 0.3, 2.0):
            shares = covered(prompts, seeds, between, rng)
            table.add_row(str(prompts), str(seeds), f"{between:g}", *(f"{share:.1%}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
