"""How images get from workers into the run folder, which only the driver writes to."""

import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from deradiff.cluster.pool import LostResultError
from deradiff.runs.cells import image_name
from deradiff.runs.records import CellsRecord
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer

_PATIENCE = 0.5, 1.0, 2.0, 4.0, 8.0  # seconds between tries to write
_THREADS = 8


class StorageUnavailableError(Exception):
    """A worker can't write images for now."""


@dataclass(frozen=True)
class Parcel:
    """Images on their way, one a cell.

    Attributes:
        record: of the cells.
        route: where the images are.
        names: of the files in the run's parts, or in the storage.
        contents: of the images, where they come with the result.
    """

    record: CellsRecord
    route: Literal["folder", "storage", "inline"]
    names: tuple[str, ...] = ()
    contents: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Routes:
    """Ways from a worker to the run folder.

    Attributes:
        parts: folder on the driver's machine; a worker that finds the probe there sees the same one.
        probe: name of a file in it, which no other folder has.
        storage: URL that fsspec opens; None where there is none.
    """

    parts: str
    probe: str
    storage: str | None

    def send(self, record: CellsRecord, contents: Sequence[bytes]) -> Parcel:
        """Put images where the driver finds them; on a worker.

        Raises:
            StorageUnavailableError: they can't be written, after some tries.
        """
        if os.path.exists(os.path.join(self.parts, self.probe)):
            names = [f"{key}-{uuid4().hex}.png" for key in record.keys]
            _patiently(lambda: self._write(names, contents))
            return Parcel(record, "folder", tuple(names))
        if self.storage is not None:
            # by content: doing a cell twice is harmless
            names = [f"{key}-{digest[:16]}.png" for key, digest in zip(record.keys, record.sha256, strict=True)]
            _patiently(lambda: self._upload(names, contents))
            return Parcel(record, "storage", tuple(names))
        return Parcel(record, "inline", contents=tuple(contents))

    def _write(self, names: Sequence[str], contents: Sequence[bytes]) -> None:
        for name, content in zip(names, contents, strict=True):
            with (Path(self.parts) / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

    def _upload(self, names: Sequence[str], contents: Sequence[bytes]) -> None:
        system, root = open_storage(self.storage or "")
        system.makedirs(root, exist_ok=True)
        for name, content in zip(names, contents, strict=True):
            system.pipe_file(f"{root}/{name}", content)


@dataclass
class Landing:
    """The driver's end: takes parcels into a run folder.

    Args:
        store: of the run.
        writer: that holds its journal.
        routes: that the workers use.
    """

    store: Store
    writer: Writer
    routes: Routes

    def take(self, parcel: Parcel, fresh: list[int]) -> CellsRecord | None:
        """Put the images that count into the run folder and throw the others away; returns the record of those.

        Raises:
            LostResultError: an image isn't there, or isn't the one that was made.
            RunFolderError: the run folder can't be written.
        """
        if fresh and parcel.route == "folder":
            for index in fresh:
                self._adopt(Path(self.routes.parts) / parcel.names[index], self._file(parcel, index))
        elif fresh:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(partial(self._save, parcel), fresh))
        self._discard(parcel)
        return parcel.record.select(fresh) if fresh else None

    def _file(self, parcel: Parcel, index: int) -> Path:
        return self.store.folder / image_name(parcel.record.keys[index])

    def _adopt(self, part: Path, file: Path) -> None:
        if not part.exists():
            raise LostResultError(f"the image {part.name} is not in the run folder, where a worker put it")
        self.writer.adopt(part, file)

    def _save(self, parcel: Parcel, index: int) -> None:
        content = parcel.contents[index] if parcel.route == "inline" else self._download(parcel.names[index])
        if sha256(content).hexdigest() != parcel.record.sha256[index]:
            raise LostResultError("an image came damaged from a worker")
        self.writer.save(self._file(parcel, index), content)

    def _download(self, name: str) -> bytes:
        try:
            system, root = open_storage(self.routes.storage or "")
            return system.cat_file(f"{root}/{name}")
        except Exception as error:  # each file system of fsspec has errors of its own
            raise LostResultError(f"the image {name} can't be fetched from the storage ({error})") from error

    def _discard(self, parcel: Parcel) -> None:
        """Remove what isn't needed any more; what stays there does no harm."""
        with suppress(Exception):
            if parcel.route == "folder":
                for name in parcel.names:
                    (Path(self.routes.parts) / name).unlink(missing_ok=True)
            elif parcel.route == "storage":
                system, root = open_storage(self.routes.storage or "")
                for name in parcel.names:
                    system.rm_file(f"{root}/{name}")


@contextmanager
def landing(store: Store, writer: Writer, storage: str | None) -> Generator[Landing]:
    """Take parcels into a run folder while the block lasts."""
    probe = f"probe-{uuid4().hex}"
    (writer.parts / probe).touch()
    digest = blake2b(store.recipe.identity.encode(), digest_size=8).hexdigest()
    url = None if storage is None else f"{storage.rstrip('/')}/deradiff-{digest}"
    yield Landing(store, writer, Routes(str(writer.parts.absolute()), probe, url))


def open_storage(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)


def _patiently(write: Callable[[], object]) -> None:
    """Write, and wait and try again where that fails: the work is worth more than the wait."""
    for pause in (*_PATIENCE, None):
        try:
            write()
            return
        except Exception as error:  # each file system of fsspec has errors of its own
            if pause is None:
                raise StorageUnavailableError(f"{type(error).__name__}: {error}") from error
            time.sleep(pause)
