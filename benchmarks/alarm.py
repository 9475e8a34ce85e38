"""The hacking alarm on the embedded pipeline: how often it finds an over-optimised ladder, and raises one on none.

Part of benchmarks/search.py. Every repetition has other prompts and seeds. The null is the
same ladder with each pair's faithfulness shuffled over lams: warmth rises as before, and faithfulness does not turn.
"""

import numpy as np
from pool import SHAPE, part
from rich.console import Console
from rich.table import Table

from deradiff.recommend import alarms

RUNS, SEEDS, LAMS = 200, 4, np.arange(0, SHAPE[2], 4)


def rates(pool: dict[str, np.ndarray], prompts: int, rng: np.random.Generator) -> tuple[float, float]:
    """Shares of repetitions with an alarm: on the ladder, and on the null."""
    raised = np.zeros(2)
    for seed in range(RUNS):
        rows, columns = rng.choice(SHAPE[0], prompts, replace=False), rng.choice(SHAPE[1], SEEDS, replace=False)
        results = part(pool, rows, columns, LAMS)
        null = part(pool, rows, columns, LAMS)
        null.scores["faithfulness"][:] = rng.permuted(null.scores["faithfulness"], axis=2)
        raised += [any(one.raised for one in alarms(own, ("warmth",), seed=seed)) for own in (results, null)]
    return float(raised[0] / RUNS), float(raised[1] / RUNS)


def measured(pool: dict[str, np.ndarray]) -> list[dict[str, float]]:
    rng, rows = np.random.default_rng(0), []
    shown = Table("prompts", "images", "alarm_power", "alarm_false_rate")
    for prompts in (6, 10, 16, 24, 32):
        power, false = rates(pool, prompts, rng)
        images = prompts * SEEDS * len(LAMS)
        rows.append({"prompts": prompts, "images": images, "alarm_power": power, "alarm_false_rate": false})
        shown.add_row(str(prompts), str(images), f"{power:.1%}", f"{false:.1%}")
    Console().print(shown)
    return rows
