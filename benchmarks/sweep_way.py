"""A case of the sweep benchmark in one mode of the engine, run a share at a time."""

import time
from pathlib import Path
from typing import Any

import torch
from sweep_cases import Case
from sweep_published import counting
from torch import Tensor

from deradiff.runs.cells import WHOLE, Cell
from deradiff.runs.records import SamplingInfo
from deradiff.runs.runner import sampling
from deradiff.runs.sampler import sampling_blocks


class Way:
    """A case in one mode, run a share at a time, each like the resumption of a sweep: what it made, and at what cost.

    Attributes:
        images: final latents by cell.
        infos: of each block.
        calls: network calls of each block, spot checks counted, copies that fill it up not.
        rows: images through the networks in all, those copies counted.
        seconds: per image, of each share; attaching not counted.
    """

    def __init__(self, case: Case, mode: str, anchor: Path) -> None:
        self.request, self.recipe, self.guidance = case.request, case.recipe(mode, anchor), case.guidance
        self.blocks = list(sampling_blocks(self.recipe, [self.request], iter, WHOLE))  # all of its cells are missing
        self.images, self.infos = dict[Cell, Tensor](), list[SamplingInfo]()
        self.calls, self.rows, self.seconds = list[int](), 0, list[float]()

    def run(self, pipe: Any, share: int, shares: int) -> None:
        """Sample one of the shares."""
        count, seconds = len(self.blocks), 0.0
        blocks = self.blocks[share * count // shares : (share + 1) * count // shares]
        with sampling(pipe, self.recipe.anchor, self.recipe) as sampler, counting([pipe.unet], self.guidance) as calls:
            for block, info in zip(self.blocks, self.infos, strict=False):
                sampler.checks.update(info, len(block))
            for block in blocks:
                before, start = calls.count, time.perf_counter()
                latents, info = sampler.latents(block)
                latents = latents.float().cpu()  # waits for the device
                seconds += time.perf_counter() - start
                sampler.checks.update(info, len(block))
                self.infos.append(info)
                self.calls.append(info.nfe + sum(check.nfe for check in info.spot_checks))
                assert calls.count - before >= self.calls[-1], "the engine counts fewer calls than we do"
                self.images |= zip(block, latents, strict=True)
            self.rows += calls.count
        self.seconds.append(seconds / sum(map(len, blocks)))

    def latents(self) -> Tensor:
        """What it made, (images, lams, C, side, side)."""
        made = torch.stack([self.images[cell] for cell in self.request.cells()])
        return made.unflatten(0, (-1, len(self.request.lams)))
