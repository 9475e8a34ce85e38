"""A case of the sweep benchmark in one mode of the engine, run a share at a time."""

import time
from pathlib import Path
from typing import Any

import torch
from sweep_cases import Case
from sweep_published import counting
from torch import Tensor

from deradiff.realignment import realign
from deradiff.sweep import Cell
from deradiff.sweep.encode import encoding_once
from deradiff.sweep.sample import Sampler


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
