"""What sweeps are tested on: a tiny random pipeline with a full anchor on disk, and rewards that are laws of pixels."""

from pathlib import Path
from typing import Any

from tests.zoo import ZOO, anchor_of
from torch import Tensor

from deradiff.sweep import Journal, Plan
from deradiff.sweep.models import load_pipeline
from deradiff.sweep.run import run
from deradiff.sweep.score import score


def save_models(root: Path) -> tuple[str, str]:
    """A model and an anchor, saved as a stranger would find them."""
    pipe: Any = ZOO["sd"].build()
    pipe.save_pretrained(root / "model")
    pipe.unet = anchor_of(pipe.unet)
    pipe.save_pretrained(root / "anchor")
    return str(root / "model"), str(root / "anchor")


def make_plan(folders: tuple[str, str], **changes: Any) -> Plan:
    given = {
        "model": folders[0],
        "anchor": folders[1],
        "prompts": ["a red circle", "a blue square"],
        "seeds": [0, 1],
        "lams": [0, 0.5, 1],
        "steps": 2,
        "batch_size": 3,
        "scheduler": "EulerAncestralDiscreteScheduler",
    }
    return Plan.of(**{**given, **changes})


def finished(folder: Path, plan: Plan, shard: tuple[int, int] = (0, 1)) -> Journal:
    journal = Journal(folder, plan)
    run(journal, load_pipeline(plan.model), plan.anchor, shard=shard)
    return journal


def sweep(folder: Path, plan: Plan, shard: tuple[int, int] = (0, 1)) -> None:
    """What a process of its own does."""
    journal = finished(folder, plan, shard)
    if shard == (0, 1):
        score(journal, REWARD)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves, but its locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def brightness(pixels: Tensor, prompts: list[str]) -> Tensor:
    assert len(pixels) == len(prompts)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    return pixels.mean((1, 2, 3))


def too_few(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3))[1:]


def not_finite(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3)) * float("nan")


def nothing(pixels: Tensor, prompts: list[str]) -> None:
    return None


REWARD = f"{__name__}:brightness"
