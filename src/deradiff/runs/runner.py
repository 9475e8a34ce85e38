"""Sampling what is missing of a run: every block is sampled, saved and journalled."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from deradiff.acceleration import Weights
from deradiff.realignment import realign
from deradiff.realignment.lams import LamLike
from deradiff.runs.cells import WHOLE, Cell, Request, Shard
from deradiff.runs.encoders import cached_text_encoders
from deradiff.runs.missing import missing_of
from deradiff.runs.models import decoding_one_by_one, set_scheduler
from deradiff.runs.provenance import note_provenance, provenance
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord
from deradiff.runs.sampler import Sampler, sampling_blocks
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer
from deradiff.writing import encode_png

logger = logging.getLogger("deradiff")

Progress = Callable[[int], None]  # called with how many more images are done

_THREADS = 4  # compressing and hashing release the GIL; more would take cores from the networks


@contextmanager
def sampling(
    pipe: Any, anchor: Any, recipe: Recipe, call_kwargs: dict[str, Any] | None = None, *, lam: LamLike = 0.0
) -> Iterator[Sampler]:
    """A sampler on a pipeline, which is left as it was; ``lam`` is the one it begins with, by name for several anchors.

    Raises:
        ConfigError: a setting the pipeline doesn't take.
        AnchorError: an anchor that doesn't fit it.
    """
    location = dict(recipe.anchor_location)
    policy = Weights() if recipe.policy == "weights" else None  # others are chosen block by block
    with (
        _scheduler(pipe, recipe.scheduler),
        cached_text_encoders(pipe),
        decoding_one_by_one(pipe),
        realign(
            pipe, anchor, lam, component=recipe.component, ensemble=recipe.ensemble, policy=policy, **location
        ) as handle,
    ):
        yield Sampler(pipe, handle, recipe, call_kwargs)


def sample_missing(
    store: Store,
    requests: Sequence[Request],
    sampler: Sampler,
    progress: Progress = lambda count: None,
    shard: Shard = WHOLE,
) -> None:
    """Sample every image of some requests that is not there yet.

    Args:
        store: of the run.
        requests: images to sample; noted in the run.
        sampler: of `sampling`, of the store's recipe.
        progress: called with how many more images are sampled.
        shard: k of n, from 0: this process samples every n-th block, others may sample the rest into the same folder.

    Raises:
        ConfigError: a setting the pipeline doesn't take.
        RunFolderError: a folder of another recipe, one that can't be written, or in which another process samples the
            same cells.
    """
    with store.writing(shard) as writer, ThreadPoolExecutor(_THREADS) as pool:
        note_provenance(writer, provenance(sampler.pipe))
        for request in requests:
            store.add_request(request)
        missing = missing_of(store)
        if store.recipe.policy == "adaptive":
            sampler.update(store.records())
        blackened = 0
        for block in sampling_blocks(store.recipe, list(requests), missing, shard):
            record = _sampled(store, writer, pool, sampler, block)
            sampler.update([record])
            blackened += len(record.blackened)
            progress(len(record.keys))
    if blackened:
        logger.warning("the pipeline's safety checker made %d images black: they are kept, and never scored", blackened)


def _sampled(store: Store, writer: Writer, pool: Executor, sampler: Sampler, block: list[Cell]) -> CellsRecord:
    """Sample a block, save it, and note it."""
    sampled = sampler.sample(block)
    files = [store.image(cell) for cell in block]
    record = CellsRecord.of(
        block,
        [store.keys(cell) for cell in block],
        _save(writer, pool, files, sampled.images),
        sampled.statistics,
        sampled.info,
        sampled.blackened,
    )
    writer.append(record)
    return record


def _save(writer: Writer, pool: Executor, files: list[Path], images: list[Image.Image]) -> list[str]:
    return list(pool.map(lambda file, image: writer.save(file, encode_png(image)), files, images))


@contextmanager
def _scheduler(pipe: Any, name: str | None) -> Iterator[None]:
    before = pipe.scheduler
    set_scheduler(pipe, name)
    try:
        yield
    finally:
        pipe.scheduler = before
