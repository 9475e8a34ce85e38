"""Real searches on a tiny random pipeline, and on what its images score."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runs.small_runs import REWARD, recipe_of
from torch import Tensor

from deradiff.analysis.criteria import Guard, make_criteria
from deradiff.runs.cells import Cell
from deradiff.runs.run import Run
from deradiff.runs.sampler import Sampled, Sampler
from deradiff.search.search import SearchResult
from deradiff.search.search_run import search_run
from deradiff.search.settings import Settings

PROMPTS = [f"picture {number}" for number in (3, 1, 5, 0, 4, 2)]  # in no order that a run would sort them in


def redness(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels[:, 0].mean((1, 2)) - pixels[:, 2].mean((1, 2))


RED, BRIGHT = f"{__name__}:redness", REWARD


def settings(
    objective: str = RED, guards: tuple[Guard, ...] = (Guard(BRIGHT, margin=0.02),), **wanted: Any
) -> Settings:
    question = make_criteria(objective, guards)
    return Settings(**{"criteria": question, "interval_width": 1e-6, "max_images": 40, **wanted})


def infer_batch(folder: Path, models: tuple[str, str], **changes: Any) -> Run:
    return Run(folder, recipe_of(models, **{"batch_size": 6, **changes}))


def find(run: Run, asked: Settings | None = None, **given: Any) -> tuple[SearchResult, list[str]]:
    """What a search answers, and what it tells of each block before it samples it."""
    told: list[str] = []
    axes = {"prompts": PROMPTS, "seeds": [0, 1], **given}
    return search_run(run, asked or settings(), **axes, report=told.append), told


def to_sample(told: list[str]) -> int:
    """How many images all blocks said they would sample."""
    return sum(int(line.rsplit(": ", 1)[1].split()[0]) for line in told)


def stamps(run: Run) -> dict[Path, int]:
    """Every image, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in (run.folder / "images").rglob("*.png")}


def keys(run: Run) -> set[str]:
    return {path.stem for path in stamps(run)}


@contextmanager
def stopping_after(batches: int) -> Iterator[None]:
    """Inside the block, Ctrl-C comes while the batch after these is sampled."""
    left, sample = [batches], Sampler.sample

    def counting(self: Sampler, cells: list[Cell]) -> Sampled:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return sample(self, cells)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Sampler, "sample", counting)
        yield


def known(found: SearchResult) -> np.ndarray:
    """Where the search has an image, (P, S, G)."""
    return np.asarray(found.sampled.images != "")
