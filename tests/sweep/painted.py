"""Runs whose images are painted instead of sampled: every file and record is there, and no model is needed."""

import io
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deradiff.sweep import Journal, Plan
from deradiff.sweep.records import BatchRecord

SIDE = 8


def paint(journal: Journal, batch: int, seed: int = 0) -> None:
    """Every image of a batch, of random colours; one that is there already becomes another edition."""
    random, earlier = np.random.default_rng([seed, batch]), journal.index().get(batch)
    digests: list[str] = []
    with journal.writing() as writer:
        for cell in journal.plan.batch(batch).cells(journal.plan):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, format="PNG")
            writer.save(journal.image(cell), file.getvalue())
            digests.append(sha256(file.getvalue()).hexdigest())
        edition = 0 if earlier is None else earlier.edition + 1
        known: dict[str, Any] = {"path_kl": [0.0] * len(digests), "info": {}}
        writer.append(BatchRecord(batch=batch, edition=edition, sha256=digests, **known))


def painted(folder: Path, **changes: Any) -> Journal:
    given = {"model": "m", "anchor": "a", "prompts": ["one", "two", "three"], "seeds": range(4), "lams": [-1, 0, 1]}
    journal = Journal(folder, Plan.of(**{**given, "batch_size": 3, **changes}))
    for batch in journal.plan.batches():
        paint(journal, batch.index)
    return journal


def images(journal: Journal, guidance: float | None = None) -> NDArray[np.float64]:
    """The pixels of a run, (prompts, seeds, lams, H, W, 3) in [0, 1]."""
    files = journal.results(guidance).images
    pictures = [np.asarray(Image.open(file).convert("RGB")) / 255 for file in files.flat]
    return np.reshape(pictures, (*files.shape, *pictures[0].shape))
