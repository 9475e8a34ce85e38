"""Files of a training: whole or not at all, and a clear word where the disk refuses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from deradiff.errors import AlignError


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file written beside its place and renamed when the block ends well; makes its folder.

    Raises:
        AlignError: it can't be written.
    """
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        AlignError: it can't be written.
    """
    with writing(path) as file:
        file.write(content)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder, made where it is missing, that no other process trains in meanwhile.

    Raises:
        AlignError: one does, or the folder can't be made.
    """
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / ".lock", timeout=0).acquire()
        except Timeout as error:
            raise AlignError(f"another process trains in {folder}; wait for it, or take another folder") from error
    with lock:
        yield


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say what can't be written, and that what was there is kept.

    Raises:
        AlignError: for every error of writing.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch's writer hides the disk's error behind one of its own
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError | SafetensorError):
            raise
        raise AlignError(
            f"can't write {path} ({cause}); what was there is kept: put that right, and run the same command again"
        ) from error
