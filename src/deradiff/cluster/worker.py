"""What runs on the other machines: a worker loads what a job needs once, and then does batches of it."""

import platform
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

from deradiff.cluster.images import Parcel, Routes, StorageUnavailableError
from deradiff.errors import ConfigError, DeradiffError
from deradiff.io import encode_png
from deradiff.runs.cells import Cell, Keys
from deradiff.runs.provenance import provenance
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord
from deradiff.runs.run import Run
from deradiff.runs.sampler import Sampler
from deradiff.runs.spot_checks import SpotChecks

_THREADS = 4  # compressing releases the GIL

DoBatch = Callable[[list[Any], Any], Any]  # items and what the driver says with them


class Job(Protocol):
    """Work of one kind, sent to every worker."""

    def open(self) -> AbstractContextManager[tuple[DoBatch, Any]]:
        """What does a batch, and what the driver is told about this worker."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a worker says; errors are told as text, as not every error survives being sent.

    Attributes:
        kind: ``done``; ``error`` of the work; ``unusable``: this worker can't do any of it; ``storage``: what it made
            can't be written for now.
        value: what came of it.
        text: of the error.
    """

    kind: Literal["done", "error", "unusable", "storage"]
    value: Any = None
    text: str = ""


class Host:
    """A worker's process.

    Args:
        job: to do.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._stack = job, ExitStack()
        self._opened: tuple[DoBatch, Any] | None = None

    def load(self) -> Answer:
        """Load what the job needs, unless it is loaded."""
        if self._opened is None:
            try:
                self._opened = self._stack.enter_context(self._job.open())
            except Exception as error:  # noqa: BLE001  (told to the driver)
                return Answer("unusable", text=f"{_described(error)} (on {platform.node()})")
        return Answer("done", self._opened[1])

    def do(self, items: list[Any], context: Any) -> Answer:
        """Do a batch."""
        loaded = self.load()  # a process that died starts again without
        if self._opened is None:
            return loaded
        try:
            return Answer("done", self._opened[0](items, context))
        except StorageUnavailableError as error:
            return Answer("storage", text=str(error))
        except Exception as error:  # noqa: BLE001  (told to the driver)
            return Answer("error", text=_described(error))


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
    def open(self) -> Iterator[tuple[DoBatch, dict[str, str]]]:
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


def _described(error: Exception) -> str:
    """An error in a line; of one that nobody foresaw, where it came from too."""
    if isinstance(error, DeradiffError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
