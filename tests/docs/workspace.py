"""What a reader of the documentation has: models, prompts, a run, and rewards in place of the published ones."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
from tests.runs.small_runs import save_models
from torch import Tensor

import deradiff
from deradiff import rewards
from deradiff.votes import Vote

PROMPTS = ["a red circle", "a large blue square"]
PUBLISHED = ("pickscore", "hps", "clip")  # their weights are not at hand
MINE = "def redness(pixels, prompts):\n    return pixels[:, 0].mean((1, 2)) - pixels[:, 2].mean((1, 2))\n"
RUN = "RUN"
SCHEDULER = "EulerAncestralDiscreteScheduler"


def brightness(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3))


def furnish(folder: Path) -> None:
    """Write what the pages take for granted into a folder: the names are those that they use."""
    from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler

    (folder / "path/to").mkdir(parents=True)
    for name, saved in zip(("model", "anchor"), save_models(folder), strict=True):
        pipe = DiffusionPipeline.from_pretrained(saved)
        pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
        for place in (name.upper(), f"path/to/{name}"):
            pipe.save_pretrained(folder / place)
    for name, prompts in (("prompts", PROMPTS), ("more", ["a yellow triangle"])):
        (folder / f"{name}.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    (folder / "mine.py").write_text(MINE)
    recipe = deradiff.Recipe(model=str(folder / "MODEL"), anchor=str(folder / "ANCHOR"), steps=2, batch_size=8)
    run = deradiff.Run(folder / RUN, recipe)
    run.sample(PROMPTS, seeds=2, lams=[0, 0.5, 1])
    run.score([*PUBLISHED, "edges"])
    for seed, (prompt, left, right) in itertools.product((0, 1), itertools.product(PROMPTS, (0, 0.5), (0.5, 1))):
        if left < right:
            run.add_vote(Vote(prompt=prompt, seed=seed, left=left, right=right, outcome="right", rater="Ada"))


@contextmanager
def rewards_at_hand() -> Iterator[None]:
    """Inside the block the published rewards are statistics of pixels."""

    def entries(group: str, **named: Any) -> Any:
        if named.get("name") in PUBLISHED:
            return [EntryPoint(named["name"], f"{__name__}:brightness", group)]
        return entry_points(group=group, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewards, "entry_points", entries)
        yield


def names_at_hand(folder: Path) -> dict[str, Any]:
    """What Python blocks take for granted."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder / "MODEL")
    pipe.set_progress_bar_config(disable=True)
    aligned = DiffusionPipeline.from_pretrained(folder / "ANCHOR").unet
    return {"deradiff": deradiff, "pipe": pipe, "aligned": aligned, "prompt": PROMPTS[0], "prompts": PROMPTS}
