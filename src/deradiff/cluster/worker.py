"""What runs on the other machines: a worker loads what a job needs once, and then does batches of it."""

import platform
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from deradiff.cluster.images import StorageUnavailableError
from deradiff.errors import DeradiffError

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


def _described(error: Exception) -> str:
    """An error in a line; of one that nobody foresaw, where it came from too."""
    if isinstance(error, DeradiffError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
