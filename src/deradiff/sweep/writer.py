"""Writing to a run folder: one process a journal, files whole or not at all, a clear word where the disk refuses."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from deradiff.errors import PlanError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Writer:
    """What holds a journal file of a run folder and may write there; several threads may save at once.

    A file is written under ``.NAME.parts/`` first, which only the holder of the journal's lock touches, so that what a
    killed process left there is thrown away when the next one is done.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / f"{name}.jsonl"
        self.parts = folder / f".{name}.parts"

    def save(self, path: Path, content: bytes) -> str:
        """Write a file whole or not at all; returns its sha256.

        Raises:
            PlanError: the disk is full, or can't be written.
        """
        with told(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = self.parts / path.name
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        return sha256(content).hexdigest()

    def append(self, record: BaseModel) -> None:
        """Add a record, on disk before this returns.

        Raises:
            PlanError: the disk is full, or can't be written.
        """
        with told(self.folder), self.path.open("ab") as file:
            file.write(record.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def hold(folder: Path, name: str) -> Iterator[Writer]:
    """Hold one journal file of a folder for this process; makes the folder.

    Raises:
        PlanError: another process holds it, or the folder can't be made.
    """
    writer = Writer(folder, name)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{name}.lock", timeout=0).acquire()
    with lock:
        with told(folder):
            writer.parts.mkdir(exist_ok=True)
        try:
            yield writer
        finally:
            shutil.rmtree(writer.parts)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside the block no other process sets the folder up."""
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=60).acquire()
    with lock:
        yield


def refuse_held(folder: Path, locks: Iterable[Path]) -> None:
    """Raise PlanError where another process holds one of these locks."""
    with told(folder):
        for path in locks:
            with FileLock(path, timeout=0):
                pass


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Say what can't be written, and that nothing is lost.

    Raises:
        PlanError: for a lock that is held, and for every OSError.
    """
    try:
        yield
    except Timeout as error:
        raise PlanError(f"another process writes to {folder}; wait for it, or give another --out") from error
    except OSError as error:
        raise PlanError(
            f"can't write to {error.filename or folder} ({error.strerror or error}); what is in {folder} is kept: "
            f"{'make room' if error.errno in _FULL else 'put that right'}, and run the same command again"
        ) from error
