"""Running a plan: every missing batch is sampled, saved and journalled; then every missing score."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.realignment import realign
from deradiff.rewards import load_reward
from deradiff.sweep.journal import Journal
from deradiff.sweep.models import call, set_scheduler
from deradiff.sweep.path import PathKL
from deradiff.sweep.plan import Cell

Progress = Callable[[int], None]  # told how many more images are done


def run(journal: Journal, pipe: Any, anchor: str, progress: Progress = lambda count: None) -> None:
    """Sample every image of the journal's plan that is not on disk yet.

    Args:
        journal: of the run; what it holds already is not made again.
        pipe: the reference pipeline, loaded; left as it was.
        anchor: folder, hub id or adapter name of the aligned model.
        progress: told of images as they are done, those found on disk first.
    """
    plan = journal.plan
    with (
        _scheduler(pipe, plan.scheduler),
        realign(pipe, anchor, 0.0, component=plan.component) as handle,
        journal.writing(),
    ):
        done = journal.done()
        for batch in plan.batches():
            if not done.issuperset(batch):
                handle.lam = plan.lams[batch[0].lam]
                prompts, seeds = [plan.prompts[c.prompt] for c in batch], [plan.seeds[c.seed] for c in batch]
                path = PathKL(pipe, len(batch))
                # at lam = 0 the anchor need not run: the path is the reference's, and its KL is 0
                with handle.observing(path) if handle.lam else nullcontext():
                    images = call(pipe, plan, prompts, seeds)
                records = [
                    {"kind": "image", "cell": cell, "image": journal.save_image(cell, image), "path_kl": kl}
                    for cell, image, kl in zip(batch, images, path.values(), strict=True)
                ]
                journal.append(records)
            progress(len(batch))


@contextmanager
def _scheduler(pipe: Any, name: str | None) -> Iterator[None]:
    before = pipe.scheduler
    set_scheduler(pipe, name)
    try:
        yield
    finally:
        pipe.scheduler = before


def score(journal: Journal, reward: str, progress: Progress = lambda count: None) -> None:
    """Score every image of a finished run that has no score of this reward yet, from its file.

    Raises:
        RewardError: no such reward, or scores that aren't one finite number per image.
    """
    function, plan = load_reward(reward), journal.plan
    known = {tuple(r["cell"]) for r in journal.records() if r["kind"] == "score" and r["reward"] == reward}
    with journal.writing():
        for batch in plan.batches():
            todo = [cell for cell in batch if cell not in known]
            if todo:
                pixels = _pixels(journal, todo)
                with torch.no_grad():
                    values = function(pixels, [plan.prompts[cell.prompt] for cell in todo])
                scores = _checked(reward, values, len(todo))
                journal.append(
                    {"kind": "score", "cell": cell, "reward": reward, "score": value}
                    for cell, value in zip(todo, scores, strict=True)
                )
            progress(len(batch))


def _pixels(journal: Journal, cells: list[Cell]) -> Tensor:
    files = [journal.folder / "images" / journal.plan.image_name(cell) for cell in cells]
    return torch.stack([to_pixels(Image.open(file)) for file in files])


def to_pixels(image: Image.Image) -> Tensor:
    """An image as pixels (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def _checked(reward: str, values: Any, count: int) -> list[float]:
    try:
        scores = torch.as_tensor(values, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(f"the reward {reward!r} returned {values!r}; expected one number per image") from error
    if len(scores) != count or not scores.isfinite().all():
        raise RewardError(
            f"the reward {reward!r} returned {scores.tolist()} for {count} images; expected a finite number each"
        )
    return scores.tolist()
