"""What sampling will cost: network function evaluations, time and disk, before it begins."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from deradiff.runs.cells import WHOLE, Cell, Request, Shard, image_name
from deradiff.runs.missing import cells_of_shard, missing_of
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord
from deradiff.runs.store import Store
from deradiff.writing import encode_png

if TYPE_CHECKING:
    from deradiff.runs.sampler import Sampler

_TIMED_STEPS = 2, 4  # of two calls of one block: their difference is the time of two steps
_LEAST_BLOCKS = 4  # below, timing would take long beside sampling
_FILES = 64  # image files whose size is looked at
_RECORDS = 256  # lines of a journal that rates are taken from


@dataclass(frozen=True)
class Cost:
    """What some requests cost.

    Attributes:
        cells: images that are asked for.
        missing: of these, to be sampled.
        nfe: network function evaluations for them; at most, where the policy saves some adaptively.
        seconds: to sample them; None where nothing was measured.
        disk: bytes of their files; None where nothing was measured.
        source: what time and disk were measured on.
    """

    cells: int
    missing: int
    nfe: int
    seconds: float | None = None
    disk: float | None = None
    source: str = "nothing sampled yet"


@dataclass(frozen=True)
class Rates:
    """What was measured: seconds a network function evaluation, bytes an image, share of the exact policy's NFE."""

    seconds_per_nfe: float
    bytes_per_image: float
    nfe_share: float
    source: str


def estimate_cost(store: Store, requests: Sequence[Request], shard: Shard = WHOLE, rates: Rates | None = None) -> Cost:
    """What is missing of some requests, and what it costs by rates, or by what the run has recorded.

    Raises:
        RunFolderError: a journal is damaged.
    """
    rates, cells, lams = rates or recorded_rates(store), 0, Counter[float]()

    def asked() -> Iterator[Cell]:
        nonlocal cells
        for cell in cells_of_shard(store.recipe, requests, shard):
            cells += 1
            yield cell

    for cell in missing_of(store)(asked()):
        lams[cell.lam] += 1
    missing, nfe = lams.total(), sum(count * store.recipe.nfe(lam) for lam, count in lams.items())
    if rates is None:
        return Cost(cells, missing, nfe)
    nfe = round(nfe * rates.nfe_share)
    return Cost(cells, missing, nfe, nfe * rates.seconds_per_nfe, missing * rates.bytes_per_image, rates.source)


def recorded_rates(store: Store) -> Rates | None:
    """Rates of what a run has sampled, by its first records; None where that is nothing."""
    timed = (record for record in store.records() if record.info.seconds > 0 and record.info.nfe)
    records: list[CellsRecord] = list(islice(timed, _RECORDS))
    if not records:
        return None
    nfe, exact = (sum(values) for values in zip(*((_nfe(store.recipe, record)) for record in records), strict=True))
    keys = islice((key for record in records for key in record.keys), _FILES)
    sizes = [file.stat().st_size for key in keys if (file := store.folder / image_name(key)).is_file()]
    images = sum(len(record.keys) for record in records)
    return Rates(
        seconds_per_nfe=sum(record.info.seconds for record in records) / nfe,
        bytes_per_image=sum(sizes) / len(sizes) if sizes else 0.0,
        nfe_share=nfe / exact,
        source=f"{images:,} images of this run",
    )


def _nfe(recipe: Recipe, record: CellsRecord) -> tuple[int, int]:
    return record.info.nfe, sum(recipe.nfe(lam) for *_, lam in record.cells)


def timed_rates(sampler: "Sampler", cells: Iterable[Cell]) -> Rates | None:
    """Rates of two short calls on the first block of some cells; None where these are too few for it to pay."""
    recipe = sampler.recipe
    first = list(islice(cells, _LEAST_BLOCKS * recipe.batch_size))
    if len(first) < _LEAST_BLOCKS * recipe.batch_size:
        return None
    block = [cell for cell in first if cell.guidance == first[0].guidance]
    block = [cell for cell in block if recipe.needs_particles(cell.lam) == recipe.needs_particles(block[0].lam)]
    block = block[: recipe.block_size(block[0].lam)]
    durations, size = [], 0.0
    for steps in _TIMED_STEPS:
        began = time.monotonic()
        images = sampler.with_steps(steps).sample(block).images
        size = sum(len(encode_png(image)) for image in images) / len(images)
        durations.append(time.monotonic() - began)
    per_step = max(0.0, (durations[1] - durations[0]) / (_TIMED_STEPS[1] - _TIMED_STEPS[0]))
    whole = max(0.0, durations[1] - per_step * _TIMED_STEPS[1]) + per_step * recipe.steps
    nfe = sum(recipe.nfe(cell.lam) for cell in block)
    return Rates(whole / nfe, size, 1.0, f"two calls of {_TIMED_STEPS[0]} and {_TIMED_STEPS[1]} steps")
