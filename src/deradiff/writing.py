"""Writing files safely: whole or not at all, lines on disk before they count, one process a lock.

What can't be written is said, and that nothing is lost; nothing is written through links.
"""

import ctypes
import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from deradiff.errors import DeradiffError, RunFolderError, reason_of, shown_path
from deradiff.reading import exists, open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFINISHED = ".deradiff-part-"  # folders that a writer fills
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


@contextmanager
def replacing(path: Path, error: type[DeradiffError] = RunFolderError) -> Generator[Path]:
    """A file to write beside ``path``, which becomes it when all went well; its folders are made.

    Raises:
        DeradiffError: it can't be written, or something else than a file is there; of the kind asked for.
    """
    part: Path | None = None
    try:
        with _replace_errors(path, error, OSError, ValueError):  # ValueError: a text that can't be a path
            part = _part_beside(path, error)
        with _replace_errors(path, error, OSError):
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
    finally:
        if part is not None:
            with suppress(OSError):  # its folder has gone
                part.unlink(missing_ok=True)


def _part_beside(path: Path, error: type[DeradiffError]) -> Path:
    check_replaceable(path, error)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    part.chmod(0o666 & ~_umask())
    return part


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def replacing_entries(
    folder: Path, error: type[DeradiffError] = RunFolderError, obsolete: Collection[str] = ()
) -> Generator[Path]:
    """A folder to fill, whose files and folders come to ``folder`` when all went well; what else is there stays.

    Entries named in ``obsolete`` go then, but for those that came.

    Each is replaced at once, a folder with all that is in it: where the writer is killed, it is the old one or the new
    one. Folders come first, so that a card in a file isn't newer than what it describes. What an earlier writer that
    was killed left unfinished is deleted.

    Raises:
        DeradiffError: something can't be written, or something of another kind is in its place; of the kind asked for.
    """
    part: Path | None = None
    made = False
    try:
        with _replace_errors(folder, error, OSError, ValueError, another="folder"):
            made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.glob(f"{_UNFINISHED}*"):
                if unfinished.is_dir() and not unfinished.is_symlink():
                    shutil.rmtree(unfinished)
            part = Path(tempfile.mkdtemp(dir=folder, prefix=_UNFINISHED))
            part.chmod(0o777 & ~_umask())
        with _replace_errors(folder, error, OSError, another="folder"):
            yield part
            _sync(part)
            entries = sorted(part.iterdir(), key=lambda entry: (entry.is_file(), entry.name))
            for entry in entries:
                _check_kind(entry, folder / entry.name, error)
            came = {entry.name for entry in entries}
            for name in obsolete:  # first: where the writer is killed there are none, and not those of before
                if name not in came and (folder / name).exists():
                    (folder / name).rename(part / name)
            for entry in entries:
                _move(entry, folder / entry.name)
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)  # what was replaced, too
            if made:
                with suppress(OSError):  # it isn't empty
                    folder.rmdir()


def _sync(folder: Path) -> None:
    """Bring all files below a folder to the disk, readable as new files are (safetensors' are their owner's alone)."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~_umask())
            with path.open("rb") as written:
                os.fsync(written.fileno())


def _check_kind(entry: Path, target: Path, error: type[DeradiffError]) -> None:
    if entry.is_dir() and target.is_dir() and not target.is_symlink():
        return
    check_replaceable(target, error)
    if entry.is_dir() and target.exists():
        raise error(f"can't write {shown_path(target)}: a file is in the way; move it, or give another folder")


def _move(entry: Path, target: Path) -> None:
    """Put a file or folder in its place; a folder that was there ends beside ``entry``, or where it was."""
    if entry.is_dir() and target.exists():
        if _exchange(entry, target):
            return
        target.rename(entry.with_name(f"{entry.name}.old"))  # killed here, there is none; the next writer makes it
    entry.replace(target)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places at once; False where the system can't."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


@contextmanager
def _replace_errors(
    path: Path, error: type[DeradiffError], *kinds: type[Exception], another: str = "file"
) -> Generator[None]:
    try:
        yield
    except DeradiffError:
        raise
    except kinds as why:
        room = "make room" if isinstance(why, OSError) and why.errno in _FULL else "put that right"
        raise error(
            f"can't write {shown_path(path)} ({reason_of(why)}); what was there is kept: {room}, or give another "
            f"{another}"
        ) from why


def check_replaceable(path: Path, error: type[DeradiffError] = RunFolderError) -> None:
    """Check that a path is free or a regular file, which may be replaced.

    Raises:
        DeradiffError: it is a link, a folder or a device, or can't be looked at; of the kind asked for.
    """
    with _replace_errors(path, error, OSError, ValueError):
        if not os.path.lexists(path):
            return
        mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise error(
            f"{shown_path(path)} is a link, to {os.path.realpath(path)}; nothing is written through links: give the "
            "file itself, or delete the link"
        )
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise error(f"can't write {shown_path(path)}: {what} is in the way; move it, or give another file")


def write_whole(path: Path, content: bytes, error: type[DeradiffError] = RunFolderError) -> None:
    """Write a file whole or not at all.

    Raises:
        DeradiffError: it can't be written; of the kind asked for.
    """
    with replacing(path, error) as part:
        part.write_bytes(content)


def encode_png(image: "Image") -> bytes:
    """An image as the content of a file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


@contextmanager
def write_errors(folder: Path) -> Generator[None]:
    """Say what can't be written to a run folder, and that nothing is lost.

    Raises:
        RunFolderError: for a lock that is held, and for every OSError.
    """
    try:
        yield
    except Timeout as error:
        raise RunFolderError(f"another process writes to {folder}; wait for it, or give another --out") from error
    except DeradiffError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a text that can't be a path
        full = isinstance(error, OSError) and error.errno in _FULL
        where = error.filename if isinstance(error, OSError) and error.filename else folder
        raise RunFolderError(
            f"can't write to {shown_path(Path(os.fsdecode(where)))} ({reason_of(error)}); what is in "
            f"{shown_path(folder)} is kept: {'make room' if full else 'put that right'}, and run the same command again"
        ) from error


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, on disk before this returns."""
    with open_regular(path, "ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def cut_torn_line(path: Path) -> None:
    """Cut off what a crash left of a last line, so that the next one starts on a line of its own."""
    if not exists(path, "the journal"):
        return
    with open_regular(path, "rb+") as file:
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


@contextmanager
def locked(path: Path, timeout: float = 0) -> Generator[None]:
    """Hold a lock file for this process.

    Args:
        path: of the lock file; its folder exists.
        timeout: seconds to wait for another process that holds it.

    Raises:
        RunFolderError: another process holds it, or it can't be made.
    """
    check_replaceable(path)
    with write_errors(path.parent):
        lock = FileLock(path, timeout=timeout).acquire()
    with lock:
        yield


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock file."""
    check_replaceable(path)
    with write_errors(path.parent):
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True
