"""Sampling on a worker: the models are loaded once, each batch becomes a parcel of images."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from deradiff.cluster.images import Parcel, Routes
from deradiff.cluster.worker import DoBatch
from deradiff.errors import ConfigError
from deradiff.runs.cells import Cell, Keys
from deradiff.runs.provenance import provenance
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord
from deradiff.runs.run import Run
from deradiff.runs.sampler import Sampler
from deradiff.runs.spot_checks import SpotChecks
from deradiff.writing import encode_png

_THREADS = 4  # compressing releases the GIL


@dataclass(frozen=True)
class SamplingContext:
    """What the driver says with each batch.

    Attributes:
        checks: the spot checks of an adaptive policy, as all records so far leave them.
        routes: for images.
    """

    checks: SpotChecks
    routes: Routes


@dataclass(frozen=True)
class SamplingJob:
    """Sampling cells of a recipe.

    Attributes:
        recipe: with models as they are found from the driver's working folder.
        identity: that the recipe must have on the worker too.
        device: as `Run` takes it.
        offload: likewise.
    """

    recipe: Recipe
    identity: str
    device: str
    offload: bool

    @contextmanager
    def open(self) -> Generator[tuple[DoBatch, dict[str, str]]]:
        """Load the models.

        Raises:
            ConfigError: they can't be loaded, or aren't those of the driver.
        """
        with TemporaryDirectory() as scratch:
            run = Run(Path(scratch) / "run", self.recipe, device=self.device, offload=self.offload)
            if run.recipe.identity != self.identity:
                raise ConfigError(f"the models {self.recipe.model} and {self.recipe.anchor} are others on this machine")
            with run.sampler() as sampler, ThreadPoolExecutor(_THREADS) as pool:

                def sample(cells: list[Cell], context: SamplingContext) -> Parcel:
                    return _sampled(sampler, Keys(self.identity), pool, cells, context)

                yield sample, provenance(sampler.pipe)


def _sampled(
    sampler: Sampler, keys: Keys, pool: ThreadPoolExecutor, cells: list[Cell], context: SamplingContext
) -> Parcel:
    sampler.checks = context.checks
    sampled = sampler.sample(cells)
    contents = list(pool.map(encode_png, sampled.images))
    hashes = [sha256(content).hexdigest() for content in contents]
    record = CellsRecord.of(
        cells, [keys(cell) for cell in cells], hashes, sampled.statistics, sampled.info, sampled.blackened
    )
    return context.routes.send(record, contents)
