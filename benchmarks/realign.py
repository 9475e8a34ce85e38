"""What a realigned image costs: seconds per image of the embedded pipeline, plain and held in every way.

    python benchmarks/realign.py [--json FILE]

Repeats are interleaved and their medians reported; ratios are to the plain reference pipeline.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import deradiff
from deradiff import testbed

IMAGES, STEPS = 16, 10
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "toggle, lam 0": ({"ensemble": "toggle"}, 0.0),
    "toggle, lam 1": ({"ensemble": "toggle"}, 1.0),
    "toggle, lam 0.5": ({"ensemble": "toggle"}, 0.5),
    "batched, lam 0.5": ({"ensemble": "batched"}, 0.5),
    "separate, lam 0.5": ({"ensemble": "separate"}, 0.5),
    "weights, lam 0.5": ({"policy": deradiff.Weights()}, 0.5),
}


def sample(pipe: Any) -> float:
    """Seconds per image."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(IMAGES)]
    start = time.perf_counter()
    pipe(
        list(testbed.prompts(IMAGES)),
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        generator=generators,
        output_type="latent",
    )
    return (time.perf_counter() - start) / IMAGES


def realigned(pipe: Any, settings: dict[str, Any], lam: float) -> float:
    """Seconds per image, attaching not counted."""
    with deradiff.realign(pipe, testbed.anchor_path(), lam, **settings):
        return sample(pipe)


def measure(repeats: int) -> dict[str, float]:
    """Median seconds per image of each case."""
    pipe = testbed.load_pipeline()
    cases: dict[str, Callable[[], float]] = {"plain reference": lambda: sample(pipe)}
    cases |= {name: lambda own=settings, v=lam: realigned(pipe, own, v) for name, (settings, lam) in CASES.items()}
    sample(pipe)
    seconds = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            seconds[name].append(case())
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    medians = measure(given.repeats)
    plain = medians["plain reference"]
    for name, value in medians.items():
        print(f"{name:<20} {1000 * value:8.1f} ms/image   {value / plain:5.2f} x")
    if given.json:
        machine = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} torch threads"
        table = {"machine": machine, "seconds_per_image": medians, "ratio": {n: v / plain for n, v in medians.items()}}
        given.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
