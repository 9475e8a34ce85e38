"""Scoring the images of a finished run, from their files."""

import io
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deradiff.errors import PlanError, RewardError
from deradiff.rewards import load_reward
from deradiff.sampling import to_pixels
from deradiff.sweep.journal import Journal
from deradiff.sweep.records import ScoreRecord
from deradiff.sweep.table import lacking


def score(journal: Journal, reward: str, progress: Callable[[int], None] = lambda count: None) -> None:
    """Score every image of a finished run that has no score of this reward yet, from its file.

    Args:
        journal: of the run.
        reward: name or ``module:function``.
        progress: told how many more images are done.

    Raises:
        RewardError: no such reward, or scores that aren't one finite number per image.
        PlanError: the run isn't finished, an image is missing or damaged, or another process scores the run.
    """
    function, plan, index = load_reward(reward), journal.plan, journal.index()
    if missing := sum(plan.batch(int(place)).count(plan) for place in np.flatnonzero(~index.done)):
        raise lacking(journal, missing, plan.count)
    scored = np.full(plan.batch_count, -1)  # the edition whose scores are known
    for _, known in journal.scores:
        if known.reward == reward:
            scored[known.batch] = known.edition
    with journal.scoring() as writer:
        for batch in plan.batches():
            cells, record = list(batch.cells(plan)), index[batch.index]
            if scored[batch.index] != record.edition:
                pixels = torch.stack([_read(journal.image(c), d) for c, d in zip(cells, record.sha256, strict=True)])
                with torch.no_grad():
                    values = function(pixels, [plan.prompts[cell.prompt] for cell in cells])
                scores = _checked(reward, values, len(cells))
                writer.append(ScoreRecord(batch=batch.index, edition=record.edition, reward=reward, scores=scores))
            progress(len(cells))


def _read(file: Path, digest: str) -> Tensor:
    try:
        content = file.read_bytes()
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        if sha256(content).hexdigest() == digest:
            return to_pixels(Image.open(io.BytesIO(content)))
        problem = "not the file that was journalled"
    raise PlanError(
        f"the image {file} is missing or damaged ({problem}); run deradiff sweep --resume again, then score"
    )


def _checked(reward: str, values: Any, count: int) -> list[float]:
    try:
        scores = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(f"the reward {reward!r} returned {values!r}; expected one number per image") from error
    if scores.shape not in ((count,), (count, 1)) or not scores.isfinite().all():
        what = "numbers that are not finite" if scores.numel() == count else f"numbers of shape {tuple(scores.shape)}"
        raise RewardError(f"the reward {reward!r} returned {what} for {count} images; expected a finite number each")
    return scores.flatten().tolist()
