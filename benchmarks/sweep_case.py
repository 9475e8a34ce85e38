"""What the sweep benchmark runs: cases, the modes of the engine, and how one mode is run a share at a time."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sweep_pipelines import Shape
from sweep_published import counting
from torch import Tensor

from deradiff import testbed
from deradiff.realignment import realign
from deradiff.sweep import Cell, Plan
from deradiff.sweep.encode import encoding_once
from deradiff.sweep.sample import Sampler

PROMPTS_SEED = 3000  # its captions were used for no tuning
MODES: dict[str, dict[str, Any]] = {
    "exact": {"mode": "exact"},
    "reuse 2": {"mode": "reuse", "refresh": 2},
    "reuse 3": {"mode": "reuse", "refresh": 3},
    "adaptive 2 %": {"mode": "adaptive", "quality": 0.02},
    "adaptive 1 %": {"mode": "adaptive", "quality": 0.01},
    "adaptive .3 %": {"mode": "adaptive", "quality": 0.003},
    "weights": {"mode": "weights"},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sweep of lams from 0 to 2, of latents ``side`` wide and high, that is run in several modes."""

    pipeline: Shape
    anchor: str
    modes: tuple[str, ...]
    scheduler: str = "DDIMScheduler"
    lams: int = 17
    steps: int = 50
    guidance: float = 1.0
    side: int = 8
    prompts: int = 8
    seeds: int = 2
    batch_size: int = 16
    repeats: int = 3

    def plan(self, mode: str, anchor: Path) -> Plan:
        """The sweep in one mode."""
        return Plan.of(
            model=self.pipeline,
            anchor=str(anchor),
            prompts=testbed.prompts(self.prompts, PROMPTS_SEED),
            seeds=range(self.seeds),
            lams=torch.linspace(0, 2, self.lams).tolist(),
            guidances=[self.guidance],
            scheduler=self.scheduler,
            steps=self.steps,
            height=8 * self.side,
            width=8 * self.side,
            batch_size=self.batch_size,
            diagnostics=False,
            **MODES[mode],
        )


class Way:
    """A case in one mode, run a share at a time, each like the resumption of a sweep: what it made, and at what cost.

    Attributes:
        images: final latents by cell.
        infos: of each batch.
        calls: network calls of each batch.
        seconds: per image, of each share; attaching not counted.
    """

    def __init__(self, case: Case, mode: str, anchor: Path) -> None:
        self.plan, self.guidance = case.plan(mode, anchor), case.guidance
        self.images, self.infos = dict[Cell, Tensor](), list[dict[str, Any]]()
        self.calls, self.seconds = list[int](), list[float]()

    def run(self, pipe: Any, share: int, shares: int) -> None:
        """Sample one of the shares."""
        plan, count = self.plan, self.plan.batch_count
        batches = [plan.batch(index) for index in range(share * count // shares, (share + 1) * count // shares)]
        seconds = 0.0
        with (
            realign(pipe, plan.anchor, 0.0, mode="weights" if plan.mode == "weights" else "auto") as handle,
            encoding_once(pipe),
            counting([pipe.unet], self.guidance) as calls,
        ):
            sampler = Sampler(pipe, handle, plan)
            for info in self.infos:
                sampler.learn(info)
            for batch in batches:
                before, start = calls.count, time.perf_counter()
                latents, info = sampler.latents(batch)
                latents = latents.float().cpu()  # waits for the device
                seconds += time.perf_counter() - start
                sampler.learn(info)
                self.infos.append(info)
                self.calls.append(calls.count - before)
                assert self.calls[-1] == info["calls"], "the engine counts its calls otherwise than we do"
                self.images |= zip(batch.cells(plan), latents, strict=True)
        self.seconds.append(seconds / sum(batch.count(plan) for batch in batches))

    def latents(self) -> Tensor:
        """What it made, (images, lams, C, side, side)."""
        return torch.stack([self.images[cell] for cell in sorted(self.images)]).unflatten(0, (-1, len(self.plan.lams)))
