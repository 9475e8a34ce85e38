"""How good the embedded pipeline is, and what its anchors do: faithfulness and warmth, with intervals.

    python benchmarks/testbed.py [--json FILE]

Prompts name every attribute and are not among those of the demo; each has one image.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from scipy.stats import binomtest
from torch import Tensor

from deradiff import testbed

BATCH = 32
SAMPLERS: dict[str, tuple[Any, int, float]] = {
    "Euler-ancestral, 20 steps": (EulerAncestralDiscreteScheduler, 20, 1.0),
    "DDIM, 20 steps": (DDIMScheduler, 20, 1.0),
    "Euler-ancestral, 20 steps, guidance 1.5": (EulerAncestralDiscreteScheduler, 20, 1.5),
    "DDIM, 20 steps, guidance 1.5": (DDIMScheduler, 20, 1.5),
}


def sample(pipe: Any, prompts: list[str], steps: int, guidance: float) -> Tensor:
    """Images (N, 3, H, W) in [0, 1], one a prompt, each with a generator of its own."""
    parts: list[Tensor] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        generators = [torch.Generator().manual_seed(start + place) for place in range(len(batch))]
        settings = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
        parts.append(pipe(batch, generator=generators, **settings).images)
    return torch.cat(parts)


def row(images: Tensor, prompts: list[str]) -> dict[str, Any]:
    """Share of faithful images with its Wilson 95 % interval, and mean warmth."""
    faithful = int(testbed.faithfulness(images, prompts).sum())
    interval = binomtest(faithful, len(prompts)).proportion_ci(method="wilson")
    share = faithful / len(prompts)
    warmth = float(testbed.warmth(images, prompts).mean())
    return {"n": len(prompts), "faithful": share, "low": interval.low, "high": interval.high, "warmth": warmth}


def measure(count: int, anchor_count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """One row for each sampler of the reference, then one for each anchor as a plain LoRA."""
    pipe, prompts = testbed.load_pipeline(), testbed.prompts(count, seed=1000)
    own = pipe.scheduler
    for name, (scheduler, steps, guidance) in SAMPLERS.items():
        pipe.scheduler = scheduler.from_config(own.config)
        yield name, row(sample(pipe, prompts, steps, guidance), prompts)
    pipe.scheduler = own
    prompts = testbed.prompts(anchor_count, seed=2000)
    for anchor in testbed.anchor_names():
        with ExitStack() as stack:
            pipe.load_lora_weights(str(testbed.anchor_path(anchor)))
            stack.callback(pipe.unload_lora_weights)
            yield f"anchor {anchor}", row(sample(pipe, prompts, 20, 1.0), prompts)


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--anchor-count", type=int, default=96)
    given = parser.parse_args()
    rows = {}
    for name, values in measure(given.count, given.anchor_count):
        rows[name] = values
        share = "{faithful:6.1%} faithful [{low:.1%}, {high:.1%}], warmth {warmth:6.3f}, n = {n}".format(**values)
        print(f"{name:<42} {share}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": f"{os.cpu_count()} CPU cores", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
