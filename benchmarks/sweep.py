"""Sweeps of lam beside the published way: network calls, time, memory, errors of latents, changes of rewards.

    python benchmarks/sweep.py [--json FILE] [--quick] [--device cuda]

The published way runs two networks in turn, for one image and one lam at a time, both always. Ratios of calls and time
are its cost by ours, spot checks counted; ratios of memory are ours by its. Errors are of final latents against mode
``exact``. On an accelerator Stable Diffusion's shapes are run at full size, in float16.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sweep_cases import ANCESTRAL, DESCRIPTION, FAST, FINE, HEADLINE, Case, cases
from sweep_measure import measure
from sweep_memory import memory
from sweep_pipelines import build, write_anchor

from deradiff import testbed

WIDTH = 118  # of the table
COLUMNS = {
    "calls_ratio": ("calls", "{:.2f} x"),
    "wall_ratio": ("time", "{:.2f} x"),
    "rel_error": ("error", "{:.3%}"),
    "worst_lam_error": ("worst lam", "{:.2%}"),
    "share_over_5_percent": ("over 5 %", "{:.1%}"),
    "spot_checks": ("checks", "{}"),
    "warmth_change_in_se": ("warmth SE", "{:.2f}"),
    "warmth_change_per_image": ("an image", "{:.4f}"),
    "faithfulness_change_in_se": ("faith. SE", "{:.2f}"),
    "faithfulness_change_per_image": ("an image", "{:.2%}"),
}


@contextmanager
def built(case: Case, device: str, divisor: int) -> Iterator[tuple[Any, Path]]:
    """A case's pipeline, and its anchor in a folder."""
    pipe = build(case.pipeline, device=device, divisor=divisor)
    if case.anchor in testbed.anchor_names():
        yield pipe, testbed.anchor_path(case.anchor)
        return
    with TemporaryDirectory() as folder:
        yield pipe, write_anchor(pipe, Path(folder))


def headline(rows: list[dict[str, Any]], memories: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that the project is held to."""

    def at(case: Case, mode: str) -> dict[str, Any]:
        names = ("pipeline", "anchor", "scheduler", "lams", "steps", "guidance", "side")
        wanted = {name: getattr(case, name) for name in names} | {"mode": mode}
        return next(row for row in rows if wanted.items() <= row.items())

    exact, fine, fast = (at(HEADLINE, mode) for mode in ("exact", FINE, FAST))
    ancestral = at(ANCESTRAL, "adaptive 2 %")
    return {
        "calls_ratio_exact": exact["calls_ratio"],
        "calls_ratio_fine": fine["calls_ratio"],
        "fine_rel_error": fine["rel_error"],
        "calls_ratio_fast": fast["calls_ratio"],
        "fast_rel_error": fast["rel_error"],
        "wall_ratio_exact": exact["wall_ratio"],
        "wall_ratio_fast": fast["wall_ratio"],
        "ancestral_calls_ratio": ancestral["calls_ratio"],
        "ancestral_rel_error": ancestral["rel_error"],
        "memory_ratio_lora": memories[0]["weights_ratio"],
    }


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print a case as a table."""
    table = Table()
    table.add_column("mode", no_wrap=True)
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right")
    for row in rows:
        shown = (form.format(row[name]) if name in row else "" for name, (_, form) in COLUMNS.items())
        table.add_row(row["mode"], *shown)
    console.print(table)


def main() -> None:
    """Measure case by case, print a table of each, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a small size, a few minutes on two cores")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    console, rows, memories = Console(), list[dict[str, Any]](), list[dict[str, Any]]()
    console.width = max(console.width, WIDTH)
    wanted = list(cases(given.device, given.quick))
    for place, (case, divisor) in enumerate(wanted, start=1):
        console.print(f"{place} of {len(wanted)}: {DESCRIPTION.format(**asdict(case))}", highlight=False)
        with built(case, given.device, divisor) as (pipe, anchor):
            made = measure(pipe, case, anchor)
            if case.pipeline != "embedded":
                memories.append(memory(case, anchor, given.device, divisor))
        show(console, made)
        rows += made
        if memories and given.json:  # the headline stands; a run that is stopped later keeps what it has
            given.json.write_text(json.dumps(summary(rows, memories, given.device), indent=1) + "\n")
    console.print_json(data={name: v for name, v in summary(rows, memories, given.device).items() if name != "rows"})


def summary(rows: list[dict[str, Any]], memories: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """What is written: the headline's figures, the machine, memory, and a row for each case and mode."""
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
    }
    return headline(rows, memories) | {"machine": machine, "memory": memories, "rows": rows}


if __name__ == "__main__":
    main()
