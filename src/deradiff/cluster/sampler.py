"""Samples blocks of a run on a cluster, as a `deradiff.runs.sampler.Sampler` does on one pipeline."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, groupby
from typing import TYPE_CHECKING

from deradiff.cluster.images import landing
from deradiff.cluster.pool import Done, work
from deradiff.cluster.scheduler import GivenUp, Scheduler
from deradiff.cluster.settings import ClusterSettings
from deradiff.errors import QuarantineError
from deradiff.runs.cells import Cell
from deradiff.runs.provenance import note_provenance
from deradiff.runs.quarantine import Quarantined, add_to_quarantine, read_quarantine
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord
from deradiff.runs.spot_checks import SpotChecks
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer

if TYPE_CHECKING:
    from deradiff.cluster.ray_pool import RayPool

logger = logging.getLogger("deradiff")


class ClusterSampler:
    """Samples blocks of a run on the workers of a cluster, which start with the first block.

    Args:
        cluster: where.
        store: of the run.
        device: that workers sample on, as `Run` takes it.
        offload: likewise.
        check: called every few seconds; what it raises ends the work.
    """

    def __init__(
        self, cluster: ClusterSettings, store: Store, device: str, offload: bool, check: Callable[[], object]
    ) -> None:
        self.cluster, self.store, self.device, self.offload, self.check = cluster, store, device, offload, check
        self._checks = SpotChecks(store.recipe)
        self._pool: RayPool | None = None

    @property
    def status(self) -> str:
        """How many workers are up."""
        count = 0 if self._pool is None else len(self._pool.workers())
        return "workers are starting" if not count else f"on {count} worker{'s' * (count > 1)}"

    def update(self, records: Iterable[CellsRecord]) -> None:
        """Let the spot checks of records, in their order, set the tolerance of an adaptive policy."""
        for record in records:
            self._checks.update(record.info, len(record.keys))

    def sample_into(self, store: Store, writer: Writer, blocks: Iterator[list[Cell]]) -> Iterator[CellsRecord]:
        """Sample blocks; their images are in the run folder when their record is yielded, in any order.

        Raises:
            ClusterError: the cluster can't be reached, no worker can begin, or nothing but errors comes of the work.
            QuarantineError: at the end: some cells are quarantined, now or earlier.
            RunFolderError: the run folder can't be written.
        """
        quarantine = {} if self.cluster.retry_quarantined else read_quarantine(store)
        held_back = list[Quarantined]()
        batches = (
            parts for block in blocks if (parts := _split(store.recipe, _without(store, block, quarantine, held_back)))
        )
        first = next(batches, None)
        if first is not None:
            scheduler = Scheduler(chain([first], batches), self.cluster.tries)
            for result in self._results(scheduler, writer):
                if isinstance(result, GivenUp):
                    held_back += self._quarantine(result)
                else:
                    yield result
        if held_back:
            count, last = len(held_back), held_back[-1]
            raise QuarantineError(
                f"{count} image{'s' * (count != 1)} could not be sampled and {'are' if count != 1 else 'is'} "
                f"quarantined; all others are there. The last one ({last.prompt[:60]!r}, seed {last.seed}, lam "
                f"{last.lam:g}; {last.tries} tries): {last.error}. See {store.folder}/quarantine.jsonl; to try again, "
                "add --retry-quarantined"
            )

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _results(self, scheduler: Scheduler[Cell], writer: Writer) -> Iterator[CellsRecord | GivenUp[Cell]]:
        from deradiff.cluster.sampling_job import SamplingContext

        pool = self._started()
        with landing(self.store, writer, self.cluster.storage) as land:
            events = work(scheduler, pool, land.take, lambda: SamplingContext(self._checks, land.routes))
            try:
                with closing(events):
                    for event in events:
                        while pool.introductions:
                            note_provenance(writer, pool.introductions.pop())
                        if isinstance(event, Done):
                            assert event.value is not None
                            yield event.value
                        else:
                            yield event
            finally:
                pool.forget()

    def _quarantine(self, given_up: GivenUp[Cell]) -> list[Quarantined]:
        entries = [
            Quarantined(key=self.store.keys(cell), **cell._asdict(), error=given_up.error, tries=given_up.tries)
            for cell in given_up.items
        ]
        for entry in entries:
            logger.warning("quarantined: %r, seed %d, lam %g: %s", entry.prompt, entry.seed, entry.lam, entry.error)
            add_to_quarantine(self.store, entry)
        return entries

    def _started(self) -> "RayPool":
        if self._pool is None:
            from deradiff.cluster.ray_pool import RayPool
            from deradiff.cluster.sampling_job import SamplingJob

            recipe = self.store.recipe
            names = {part: self.store.located(getattr(recipe, part)) for part in ("model", "anchor")}
            job = SamplingJob(recipe.model_copy(update=names), recipe.identity, self.device, self.offload)
            self._pool = RayPool(self.cluster, job, self.check)
        return self._pool


def _without(
    store: Store, block: list[Cell], quarantine: dict[str, Quarantined], held_back: list[Quarantined]
) -> list[Cell]:
    """A block without quarantined cells, which are put with those held back."""
    if not quarantine:
        return block
    entries = [quarantine.get(store.keys(cell)) for cell in block]
    held_back += [entry for entry in entries if entry is not None]
    return [cell for cell, entry in zip(block, entries, strict=True) if entry is None]


def _split(recipe: Recipe, block: Sequence[Cell]) -> list[list[Cell]]:
    """The smallest pieces of a block that give the same images by themselves."""
    if not recipe.depends_on_lams:
        return [[cell] for cell in block]
    return [list(group) for _, group in groupby(block, key=lambda cell: (cell.prompt, cell.seed))]
