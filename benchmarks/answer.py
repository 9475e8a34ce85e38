"""Is the answer safe to follow, and how much does safety cost?

    python benchmarks/answer.py --json benchmarks/results/answer.json

Measures the rule of `deradiff.recommend`: violations of guards and the recommended lam as a share of the right one
(answer_guards.py), bias and coverage of what is printed beside it and the power at the number of prompts it names
(answer_choice.py), the hacking alarm (answer_alarm.py) and the search (answer_search.py). Rates that come close to what
they must not pass are measured again with more repetitions, which then count.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a process

import answer_alarm
import answer_choice
import answer_guards
import answer_search
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from truths import Truth

SEARCHES = 60
ALARM_PROMPTS, ENOUGH = (10, 16, 32), 32  # from which groups of a tenth are rarely missed altogether
PILOTS = (
    Truth("gaussian", "linear", "alike", 0.2, 1),
    Truth("exponential", "quadratic", "exponential", 0.2, 4),
    Truth("binary", "linear", "few", 0.2, 4),
    Truth("five levels", "quadratic", "alike", 0.1, 1),
)

Task = tuple[Callable[..., Any], tuple[Any, ...]]


def _run(task: Task) -> Any:
    function, arguments = task
    return function(*arguments)


def measured(what: str, tasks: Iterable[Task]) -> list[Any]:
    """The results of all tasks, in their order."""
    listed = list(tasks)
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        return list(tqdm(pool.imap(_run, listed), desc=what, total=len(listed)))


def guards(quick: bool) -> dict[str, Any]:
    prompts = (3, 10, 32) if quick else answer_guards.PROMPTS
    truths = answer_guards.truths()[:: 7 if quick else 1]
    cells = measured("guards", ((answer_guards.synthetic, (p, t, 0)) for p, t in product(prompts, truths)))
    fragile = [t for t in truths if answer_guards.is_fragile(_cell(t))]
    floored = ((answer_guards.synthetic, (p, t, 1, 0.0)) for p, t in product([p for p in prompts if p <= 10], fragile))
    floors = measured("with a floor", floored)
    large = [t for t in truths if t.margin == 0.1]
    at_300 = measured("300 prompts", ((answer_guards.synthetic, (300, t, 2)) for t in large[:: 2 if quick else 1]))
    sizes = (10, 100) if quick else (*answer_guards.PROMPTS, 300)
    pool = measured("pool", ((answer_guards.pool, (p, m, 3)) for p, m in product(sizes, answer_guards.MARGINS)))
    sound = [cell for cell in cells if not answer_guards.is_fragile(cell)]
    broken = [cell for cell in cells if answer_guards.is_fragile(cell)]
    return {
        "violation_max": max(row["violations"] for row in [*sound, *pool]),
        "violation_fragile": max((row["violations"] for row in broken), default=None),
        "violation_fragile_with_floor": max((row["violations"] for row in floors), default=None),
        "violation_pool_10": _of_pool(pool, 10, "violations"),
        "share_of_right_lam_100": _of_pool(pool, 100, "share_of_right_lam"),
        "share_of_right_lam_100_smallest": _of_pool(pool, 100, "share_of_right_lam_smallest"),
        "share_of_right_lam_300_synthetic": float(np.mean([row["share_of_right_lam"] for row in at_300])),
        "guards": cells,
        "guards_with_floor": floors,
        "guards_300": at_300,
        "pool": pool,
    }


def _cell(truth: Truth) -> dict[str, Any]:
    return {"kind": truth.kind, "prompts react": truth.prompts, "prompts": 10, "floor": None}


def _of_pool(rows: list[dict[str, Any]], prompts: int, key: str) -> float:
    return next(row[key] for row in rows if (row["prompts"], row["margin"]) == (prompts, 0.1))


def choices(quick: bool) -> dict[str, Any]:
    cells = answer_choice.cells()[:: 5 if quick else 1]
    rows = measured("intervals", ((answer_choice.coverage, (*cell, 0)) for cell in cells))
    pilots = product(PILOTS[:: 2 if quick else 1], (10, 32) if quick else (10, 20, 32))
    powers = measured("named prompts", ((answer_choice.power, (truth, pilot, 0)) for truth, pilot in pilots))
    achieved = [row["achieved"] for row in powers if row["achieved"] is not None]
    return {
        "gain_bias_max": max(abs(row["gain_bias"]) for row in rows),
        "gain_coverage_min": _least(rows, "gain_coverage"),
        "change_coverage_min": _least(rows, "change_coverage"),
        "lam_coverage_min": _least(rows, "lam_coverage"),
        "power_at_named_n": float(np.mean(achieved)),
        "intervals": rows,
        "named_prompts": powers,
    }


def _least(rows: list[dict[str, Any]], key: str) -> float:
    return min(row[key] for row in rows if row[key] is not None)


def alarm(quick: bool) -> dict[str, Any]:
    prompts, seeds = ((10, 32), (4,)) if quick else (ALARM_PROMPTS, (1, 4))
    cells = product([*answer_alarm.NULLS, *answer_alarm.RARE], prompts, seeds)
    rows = measured("false alarms", ((answer_alarm.false_alarms, (*cell, 0)) for cell in cells))
    powers = measured("alarm power", ((answer_alarm.power, (p, others, 1)) for p in (10, 16, 24) for others in (0, 3)))
    pool = measured("alarm on the pool", ((answer_alarm.pool_power, (p, 2)) for p in (10, 16, 24, 32)))
    return {
        "alarm_false_max": max(row["false"] for row in rows if not row["rare"] or row["prompts"] >= ENOUGH),
        "alarm_false_rare": {
            str(p): max(row["false"] for row in rows if row["rare"] and row["prompts"] == p) for p in prompts
        },
        "alarm_power_10": next(row["power"] for row in powers if (row["prompts"], row["others"]) == (10, 0)),
        "alarm_power_16": next(row["power"] for row in powers if (row["prompts"], row["others"]) == (16, 0)),
        "false_alarms": rows,
        "alarm_power": powers,
        "alarm_power_pool": pool,
    }


def searches(quick: bool) -> dict[str, Any]:
    count, margins = (10, answer_search.MARGINS[:1]) if quick else (SEARCHES, answer_search.MARGINS)
    rows = []
    for margin in margins:
        found = measured(f"search, {margin:.0%}", ((answer_search.one, (margin, number)) for number in range(count)))
        rows.append(answer_search.summary(margin, found))
    keys = ("search_hit_rate", "search_violation", "search_image_share")
    repetitions = 4 if quick else 12
    tasks = ((answer_search.shape, cell) for cell in product(answer_search.SHAPES, range(repetitions)))
    shapes = answer_search.shape_summary(measured("search, shapes", tasks))
    return {**{key: rows[0][key] for key in keys}, "searches": rows, "search_shapes": shapes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cells")
    parser.add_argument("--only", choices=("guards", "choices", "alarm", "searches"), help="keep the rest of the file")
    options = parser.parse_args()
    parts = {"guards": guards, "choices": choices, "alarm": alarm, "searches": searches}
    found = json.loads(options.json.read_text(encoding="utf-8")) if options.only else {}
    for name, part in parts.items():
        if options.only in (None, name):
            found |= part(options.quick)
            options.json.write_text(json.dumps(_headline_first(found), indent=1) + "\n", encoding="utf-8")
    table = Table("figure", "measured")
    for key, value in found.items():
        if not isinstance(value, list):
            table.add_row(key, f"{value:.3g}" if isinstance(value, float) else str(value))
    Console().print(table)


def _headline_first(found: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(found.items(), key=lambda item: isinstance(item[1], list)))


if __name__ == "__main__":
    main()
