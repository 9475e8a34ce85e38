"""Scoring the images of a finished run, from their files."""

import io
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deradiff.errors import PlanError
from deradiff.rewards import load_reward, scores
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
        RewardError: no such reward, it raised, or scores that aren't one finite number per image.
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
                values = scores(reward, function, pixels, [plan.prompts[cell.prompt] for cell in cells])
                writer.append(ScoreRecord(batch=batch.index, edition=record.edition, reward=reward, scores=values))
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
