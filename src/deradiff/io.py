"""Reading and writing files safely: whole or not at all, one process a lock, nothing followed out of a folder.

Every read is guarded (UTF-8, a size limit, damaged or deeply nested JSON), every write says what can't be written and
that nothing is lost.
"""

import errno
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from deradiff.errors import DeradiffError, RunFolderError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 256 << 20  # of a file that is read into memory as a whole
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path, error: type[DeradiffError] = RunFolderError) -> Iterator[Path]:
    """A file to write beside ``path``, which becomes it when all went well; its folders are made.

    Raises:
        DeradiffError: it can't be written; of the kind asked for.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        part.chmod(0o666 & ~_umask())
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except OSError as why:
        room = "make room" if why.errno in _FULL else "put that right"
        raise error(
            f"can't write {path} ({why.strerror or why}); what was there is kept: {room}, or give another file"
        ) from why
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, error: type[DeradiffError] = RunFolderError) -> None:
    """Write a file whole or not at all.

    Raises:
        DeradiffError: it can't be written; of the kind asked for.
    """
    with replacing(path, error) as part:
        part.write_bytes(content)


def read_whole(path: Path, what: str, error: type[DeradiffError] = RunFolderError, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        DeradiffError: it is missing, too large, no regular file, or can't be read; of the kind asked for.
    """
    try:
        status = path.stat()
        if not path.is_file():
            raise error(f"{what} {path} is no regular file; give a file")
        if status.st_size > limit:
            raise error(f"{what} {path} has {status.st_size:,} bytes; expected at most {limit:,}")
        return path.read_bytes()
    except OSError as why:
        raise error(f"{what} {path} can't be read ({why.strerror or why})") from why


def read_object(path: Path, what: str, error: type[DeradiffError] = RunFolderError) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DeradiffError: it can't be read, or holds no JSON object; of the kind asked for.
    """
    return parse_object(read_whole(path, what, error), f"{what} {path}", error)


def parse_object(content: bytes, what: str, error: type[DeradiffError] = RunFolderError) -> dict[str, Any]:
    """The JSON object in some bytes.

    Raises:
        DeradiffError: they hold none; of the kind asked for.
    """
    try:
        parsed = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as why:
        raise error(f"{what} is damaged ({_first_line(why)}); restore it, or delete it") from why
    if not isinstance(parsed, dict):
        raise error(f"{what} holds a {type(parsed).__name__}; expected a JSON object")
    return parsed


def check_inside(folder: Path, path: Path) -> None:
    """Check that a path's file lies inside a folder, symbolic links resolved.

    Raises:
        RunFolderError: it lies outside.
    """
    home = folder.resolve()
    target = path.resolve()
    if target != home and home not in target.parents:
        raise RunFolderError(f"{path} is a link out of {folder}, to {target}; nothing is followed out of a run folder")


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Say what can't be written to a run folder, and that nothing is lost.

    Raises:
        RunFolderError: for a lock that is held, and for every OSError.
    """
    try:
        yield
    except Timeout as error:
        raise RunFolderError(f"another process writes to {folder}; wait for it, or give another --out") from error
    except OSError as error:
        room = "make room" if error.errno in _FULL else "put that right"
        raise RunFolderError(
            f"can't write to {error.filename or folder} ({error.strerror or error}); what is in {folder} is kept: "
            f"{room}, and run the same command again"
        ) from error


@contextmanager
def locked(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold a lock file for this process.

    Args:
        path: of the lock file; its folder exists.
        timeout: seconds to wait for another process that holds it.

    Raises:
        RunFolderError: another process holds it, or it can't be made.
    """
    with write_errors(path.parent):
        lock = FileLock(path, timeout=timeout).acquire()
    with lock:
        yield


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock file."""
    with write_errors(path.parent):
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file from a byte on, each with the byte it starts at; a torn last line doesn't count."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)


def cut_torn_line(path: Path) -> None:
    """Cut off what a crash left of a last line, so that the next one starts on a line of its own."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        position = size
        while position > 0:
            block = min(position, 1 << 16)
            file.seek(position - block)
            newline = file.read(block).rfind(b"\n")
            if newline >= 0:
                position = position - block + newline + 1
                break
            position -= block
        if position < size:
            file.truncate(position)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, on disk before this returns."""
    with path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def regular_files(folder: Path, matches: Callable[[str], bool]) -> list[Path]:
    """The files of a folder by name, sorted; nothing is followed out of it.

    Raises:
        RunFolderError: one is a link out of the folder.
    """
    paths = sorted(path for path in folder.iterdir() if matches(path.name)) if folder.is_dir() else []
    for path in paths:
        check_inside(folder, path)
    return paths


def encode_png(image: "Image") -> bytes:
    """An image as the content of a file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
