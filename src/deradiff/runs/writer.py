"""Writing to a run folder: what holds a journal writes files whole and appends lines; others wait, or are refused."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from deradiff.reading import check_inside
from deradiff.runs.records import CellsRecord, ScoreRecord
from deradiff.writing import append_line, check_replaceable, cut_torn_line, locked, write_errors

_SETUP_SECONDS = 60  # to wait for another process that sets the folder up


class Writer:
    """What holds a journal of a run folder and may write there; several threads may save at once.

    A file is written under ``.NAME.parts/`` first, which only the holder of the journal's lock touches, so that what a
    killed process left there is thrown away when the next one is done.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / f"{name}.jsonl"
        self.parts = folder / f".{name}.parts"

    def save(self, path: Path, content: bytes) -> str:
        """Write a file whole or not at all; returns its sha256.

        Raises:
            RunFolderError: the disk is full, the file can't be written, or it would lie outside the folder.
        """
        with write_errors(self.folder):
            check_inside(self.folder, path.parent)
            check_replaceable(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = self.parts / path.name
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        return sha256(content).hexdigest()

    def adopt(self, part: Path, path: Path) -> None:
        """Let a file that another process wrote whole among the parts become a file of the folder.

        Raises:
            RunFolderError: it isn't there, can't be moved, or would lie outside the folder.
        """
        with write_errors(self.folder):
            check_inside(self.folder, path.parent)
            check_replaceable(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)

    def append(self, record: CellsRecord | ScoreRecord) -> None:
        """Add a line, on disk before this returns.

        Raises:
            RunFolderError: the disk is full, or can't be written.
        """
        with write_errors(self.folder):
            append_line(self.path, record.model_dump_json().encode())


@contextmanager
def holding(folder: Path, name: str) -> Generator[Writer]:
    """Hold one journal of a folder for this process; makes the folder."""
    writer = Writer(folder, name)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path in (writer.path, writer.parts):
        check_inside(folder, path)
    with locked(folder / f".{name}.lock"):
        with write_errors(folder):
            shutil.rmtree(writer.parts, ignore_errors=True)  # what a killed process left; it may hold links
            writer.parts.mkdir(exist_ok=True)
            cut_torn_line(writer.path)
        try:
            yield writer
        finally:
            shutil.rmtree(writer.parts, ignore_errors=True)


@contextmanager
def setup_lock(folder: Path) -> Generator[None]:
    """Inside the block no other process sets the folder up."""
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", timeout=_SETUP_SECONDS):
        yield
