"""Sampling what is missing of a run: every block is sampled, saved and journalled."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from deradiff.acceleration import Weights
from deradiff.realignment import realign
from deradiff.realignment.lams import LamLike
from deradiff.runs.cells import WHOLE, Cell, Request, Shard
from deradiff.runs.encoders import cached_text_encoders
from deradiff.runs.missing import missing_of
from deradiff.runs.models import decoding_one_by_one, set_scheduler
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord
from deradiff.runs.sampler import Sampler, sampling_blocks
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer

logger = logging.getLogger("deradiff")

Progress = Callable[[int], None]  # called with how many more images are done


class BlockSampler(Protocol):
    """What samples a run's blocks: a `Sampler` in this process, or the workers of a cluster."""

    @property
    def status(self) -> str:
        """What to show beside the progress; empty where there is nothing to say."""
        ...

    def update(self, records: Iterable[CellsRecord]) -> None:
        """Let the spot checks of records, in their order, set the tolerance of an adaptive policy."""
        ...

    def sample_into(self, store: Store, writer: Writer, blocks: Iterator[list[Cell]]) -> Iterator[CellsRecord]:
        """Sample blocks; their images are in the run folder when their record is yielded."""
        ...


@contextmanager
def sampling(
    pipe: Any, anchor: Any, recipe: Recipe, call_kwargs: dict[str, Any] | None = None, *, lam: LamLike = 0.0
) -> Generator[Sampler]:
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
    sampler: BlockSampler,
    progress: Progress = lambda count: None,
    shard: Shard = WHOLE,
) -> None:
    """Sample every image of some requests that is not there yet.

    Args:
        store: of the run.
        requests: images to sample; noted in the run.
        sampler: of the store's recipe.
        progress: called with how many more images are sampled.
        shard: k of n, from 0: this process samples every n-th block, others may sample the rest into the same folder.

    Raises:
        ConfigError: a setting the pipeline doesn't take.
        RunFolderError: a folder of another recipe, one that can't be written, or in which another process samples the
            same cells.
    """
    with store.writing(shard) as writer:
        for request in requests:
            store.add_request(request)
        missing = missing_of(store)
        if store.recipe.policy == "adaptive":
            sampler.update(store.records())
        blackened = 0
        for record in sampler.sample_into(store, writer, sampling_blocks(store.recipe, list(requests), missing, shard)):
            writer.append(record)
            sampler.update([record])
            blackened += len(record.blackened)
            progress(len(record.keys))
    if blackened:
        logger.warning("the pipeline's safety checker made %d images black: they are kept, and never scored", blackened)


@contextmanager
def _scheduler(pipe: Any, name: str | None) -> Generator[None]:
    before = pipe.scheduler
    set_scheduler(pipe, name)
    try:
        yield
    finally:
        pipe.scheduler = before
