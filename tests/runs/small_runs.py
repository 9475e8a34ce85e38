"""What runs are tested on: a tiny random pipeline with a full anchor on disk, and rewards that are laws of pixels."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.zoo import ZOO, anchor_of
from torch import Tensor

from deradiff.results import Results
from deradiff.runs.cells import WHOLE, Request, Shard
from deradiff.runs.models import load_pipeline
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run
from deradiff.runs.runner import sampling

PROMPTS = ["a red circle", "a blue square"]
AXES: dict[str, Any] = {"prompts": PROMPTS, "seeds": 2, "lams": [0, 0.5, 1]}


def save_models(root: Path) -> tuple[str, str]:
    """A model and an anchor, saved as a stranger would find them."""
    pipe: Any = ZOO["sd"].build()
    pipe.save_pretrained(root / "model")
    pipe.unet = anchor_of(pipe.unet)
    pipe.save_pretrained(root / "anchor")
    return str(root / "model"), str(root / "anchor")


def recipe_of(models: tuple[str, str], **changes: Any) -> Recipe:
    given = {"model": models[0], "anchor": models[1], "steps": 2, "batch_size": 3}
    return Recipe(**{**given, "scheduler": "EulerAncestralDiscreteScheduler", **changes})


@cache
def pipeline(model: str) -> Any:
    """A pipeline that is loaded once, as sampling leaves it as it was."""
    return load_pipeline(model)


def quiet(count: int) -> None:
    """Progress that isn't shown."""


def sample(run: Run, requests: list[Request], shard: Shard = WHOLE, progress: Any = quiet) -> None:
    """As ``run.sample``, without loading the pipeline anew."""
    with sampling(pipeline(run.recipe.model), run.recipe.anchor, run.recipe) as sampler:
        run.sample_requests(requests, shard=shard, progress=progress, sampler=sampler)


def grown(folder: Path, recipe: Recipe, shard: Shard = WHOLE, **axes: Any) -> Run:
    """A run that was asked for some more; what isn't given is the run's."""
    run = Run(folder, recipe)
    sample(run, run.requests(**axes), shard)
    return run


def finished(folder: Path, recipe: Recipe, shard: Shard = WHOLE, **axes: Any) -> Run:
    """A run of the usual images."""
    return grown(folder, recipe, shard, **{**AXES, **axes})


def sweep(folder: Path, recipe: Recipe, asked: list[dict[str, Any]], shard: Shard = WHOLE) -> None:
    """What a process of its own does: it asks for some images, and for more, and scores them."""
    for axes in asked:
        run = grown(folder, recipe, shard, **axes)
        if shard == WHOLE:
            run.score(REWARD, progress=quiet)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves, but its locks; of journals all but how long a block took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {
        path.relative_to(folder).as_posix(): re.sub(rb'"seconds":[^,}]*', b'"seconds":0', path.read_bytes())
        if path.name.endswith(".jsonl")
        else path.read_bytes()
        for path in files
    }


def images(folder: Path) -> dict[str, bytes]:
    """Every image by its name."""
    return {name: content for name, content in contents(folder).items() if name.startswith("images/")}


def stamps(folder: Path) -> dict[str, int]:
    """When every image was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "images").rglob("*.png")}


def journalled(run: Run) -> list[str]:
    """The keys of all lines, as often as they are there."""
    return [key for record in run.store.records() for key in record.keys]


def assert_same(one: Results, other: Results) -> None:
    """Two tables hold the same, to the last bit."""
    names = [[Path(file).name for file in table.images.flat] for table in (one, other)]
    assert names[0] == names[1]
    for what in ("prompts", "seeds", "lams", "unscored", "missing", "rewards"):
        assert getattr(one, what) == getattr(other, what)
    path_kl = [{} if table.path_kl is None else {"path_kl": table.path_kl} for table in (one, other)]
    for first, second in ((one.scores, other.scores), (one.paths, other.paths), path_kl):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


def brightness(pixels: Tensor, prompts: list[str]) -> Tensor:
    assert len(pixels) == len(prompts)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    return pixels.mean((1, 2, 3))


def length(pixels: Tensor, prompts: list[str]) -> list[float]:
    return [float(len(prompt)) for prompt in prompts]


def too_few(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3))[1:]


def not_finite(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3)) * float("nan")


def nothing(pixels: Tensor, prompts: list[str]) -> None:
    return None


REWARD, LENGTH = f"{__name__}:brightness", f"{__name__}:length"
