"""Searching for lam against sampling a dense grid, and the hacking alarm, on the embedded pipeline.

    python benchmarks/search.py --json benchmarks/results/search.json

reads benchmarks/results/pool.parquet (benchmarks/pool.py). In every repetition, with other seeds, the dense grid is 32
prompts x 4 seeds x 33 lams, and the search may look at 15 % of its images. A hit is within 0.1 of the lam that
``recommend`` takes on the dense grid. Also told: hits of the answer of all 24 seeds, and the alarm (alarm.py).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from alarm import measured as alarm_measured
from pool import SHAPE, part, table
from rich.console import Console
from rich.table import Table

from deradiff.recommend import recommend
from deradiff.results import Results
from deradiff.search import Settings, search
from deradiff.search.observed import Rectangle

RUNS, SEEDS, SHARE, CLOSE = 100, 4, 0.15, 0.1
OBJECTIVE, GUARDS = "warmth", ("faithfulness:-10%", "faithfulness:-5%", "faithfulness:-20%")
ALL = np.arange(SHAPE[2])


def measured(pool: dict[str, np.ndarray], guard: str, rng: np.random.Generator) -> dict[str, Any]:
    prompts = np.arange(SHAPE[0])
    truth = recommend(part(pool, prompts, np.arange(SHAPE[1]), ALL), objective=OBJECTIVE, guard=guard).lam
    found, errors, shares, covered, widths = [], [], [], [], []
    for _ in range(RUNS):
        seeds = rng.choice(SHAPE[1], SEEDS, replace=False)
        dense = part(pool, prompts, seeds, ALL)

        def sample(number: int, own: Rectangle, seeds: np.ndarray = seeds) -> Results:
            return part(pool, prompts[own.prompts], seeds[list(own.seeds)], np.array(own.lams))

        settings = Settings(objective=OBJECTIVE, guard=guard, interval=1e-6, images=int(SHARE * dense.images.size))
        answer, wanted = search(settings, SHAPE[0], SEEDS, sample), recommend(dense, objective=OBJECTIVE, guard=guard)
        low, high = answer.interval
        found.append(answer.choice.lam)
        errors.append(answer.choice.lam - wanted.lam)
        shares.append(answer.images / dense.images.size)
        covered.append(low <= wanted.lam <= high)
        widths.append(high - low)
    return {
        "guard": guard,
        "hit_rate": float(np.mean(np.abs(errors) <= CLOSE + 1e-9)),
        "hit_rate_of_all_seeds": float(np.mean(np.abs(np.array(found) - truth) <= CLOSE + 1e-9)),
        "image_share": float(np.mean(shares)),
        "image_share_most": float(np.max(shares)),
        "coverage": float(np.mean(covered)),
        "interval_width": float(np.median(widths)),
        "errors_5_50_95": np.percentile(errors, (5, 50, 95)).tolist(),
        "lam_of_all_seeds": truth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    out, pool = parser.parse_args().json, table()
    rows = [measured(pool, guard, np.random.default_rng(0)) for guard in GUARDS]
    shown = Table(*rows[0])
    for row in rows:
        shown.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(shown)
    alarm = alarm_measured(pool)
    told = {"repetitions": RUNS, "prompts": SHAPE[0], "seeds": SEEDS, "searches": rows, "alarm": alarm}
    headline = {key: rows[0][key] for key in ("hit_rate", "image_share", "coverage")}
    headline |= {key: alarm[-1][key] for key in ("alarm_power", "alarm_false_rate")}
    out.write_text(json.dumps({**headline, **told}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
