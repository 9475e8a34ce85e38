"""Reading and writing files safely: whole or not at all, one process a lock, nothing followed out of a folder.

Every read is guarded (regular files alone, UTF-8, a size limit, damaged or deeply nested JSON and YAML, texts that are
no Unicode, images that can't be decoded), every write says what can't be written and that nothing is lost.
"""

import errno
import io
import json
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from deradiff.errors import DeradiffError, RunFolderError
from deradiff.validation import describe_errors

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 256 << 20  # of a file that is read into memory as a whole
MAX_LINE_BYTES = 64 << 20
_MAX_YAML_BYTES = 1 << 20
_MAX_YAML_NODES = 100_000  # with all aliases written out
_MAX_SHOWN = 200  # characters of a path in a message
_UNDECODABLE = (  # what PIL raises for damaged files
    *(OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(MemoryError, struct.error, zlib.error),
)
_FULL = (errno.ENOSPC, errno.EDQUOT)

M = TypeVar("M", bound=BaseModel)


@contextmanager
def replacing(path: Path, error: type[DeradiffError] = RunFolderError) -> Iterator[Path]:
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


@contextmanager
def _replace_errors(path: Path, error: type[DeradiffError], *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except DeradiffError:
        raise
    except kinds as why:
        room = "make room" if isinstance(why, OSError) and why.errno in _FULL else "put that right"
        raise error(
            f"can't write {_shown(path)} ({reason_of(why)}); what was there is kept: {room}, or give another file"
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
            f"{_shown(path)} is a link, to {os.path.realpath(path)}; nothing is written through links: give the file "
            "itself, or delete the link"
        )
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise error(f"can't write {_shown(path)}: {what} is in the way; move it, or give another file")


def write_whole(path: Path, content: bytes, error: type[DeradiffError] = RunFolderError) -> None:
    """Write a file whole or not at all.

    Raises:
        DeradiffError: it can't be written; of the kind asked for.
    """
    with replacing(path, error) as part:
        part.write_bytes(content)


def open_regular(path: Path, mode: str = "rb") -> IO[bytes]:
    """Open a regular file in binary; a pipe or a device, which may never end, is an OSError."""
    # without waiting, as for the other end of a pipe
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(path, mode, opener=lambda name, own: os.open(name, own | flags, 0o666))  # noqa: SIM115  (returned)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return file


@contextmanager
def read_errors(path: Path, what: str, error: type[DeradiffError] = RunFolderError) -> Iterator[None]:
    """Say what can't be read and why.

    Raises:
        DeradiffError: for every OSError, and for texts that can't be paths; of the kind asked for.
    """
    try:
        yield
    except DeradiffError:
        raise
    except UnicodeDecodeError as why:
        raise error(f"{what} {_shown(path)} is not UTF-8 text ({why.reason} at byte {why.start}); save it so") from why
    except (OSError, ValueError) as why:
        raise error(f"{what} {_shown(path)} can't be read ({reason_of(why)})") from why


def exists(path: Path, what: str, error: type[DeradiffError] = RunFolderError) -> bool:
    """Whether there is something at a path, a link to nowhere included.

    Raises:
        DeradiffError: that can't be known, as in a folder that can't be read; of the kind asked for.
    """
    with read_errors(path, what, error):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def read_whole(
    path: Path,
    what: str,
    error: type[DeradiffError] = RunFolderError,
    *,
    limit: int = MAX_BYTES,
    inside: Path | None = None,
) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        what: it is, for messages.
        error: kind of the error.
        limit: bytes.
        inside: a folder that it must lie in, links resolved.

    Raises:
        DeradiffError: it is missing, too large, no regular file, or can't be read; of the kind asked for.
        RunFolderError: it lies outside the folder.
    """
    with read_errors(path, what, error):
        if inside is not None:
            check_inside(inside, path)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise error(f"{what} {_shown(path)} has {size:,} bytes; expected at most {limit:,}")
            return file.read()


def read_text(path: Path, what: str, error: type[DeradiffError] = RunFolderError, limit: int = MAX_BYTES) -> str:
    """The text of a regular file, in UTF-8, without its byte order mark.

    Raises:
        DeradiffError: as `read_whole`; or it isn't UTF-8.
    """
    with read_errors(path, what, error):
        return read_whole(path, what, error, limit=limit).decode("utf-8-sig")


def read_object(
    path: Path, what: str, error: type[DeradiffError] = RunFolderError, *, inside: Path | None = None
) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DeradiffError: it can't be read, or holds no JSON object; of the kind asked for.
    """
    return parse_object(read_whole(path, what, error, inside=inside), f"{what} {_shown(path)}", error)


def parse_json(content: bytes | str, what: str, error: type[DeradiffError], remedy: str) -> Any:
    """The JSON value in some bytes, or in a text; ``remedy`` is what to do where they hold none.

    Raises:
        DeradiffError: they hold none; of the kind asked for.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        parsed = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is no text, and can't be written again
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as why:
        raise error(f"{what} is damaged ({reason_of(why)}); {remedy}") from why
    return parsed


def parse_object(
    content: bytes | str,
    what: str,
    error: type[DeradiffError] = RunFolderError,
    remedy: str = "restore it, or delete it",
) -> dict[str, Any]:
    """The JSON object in some bytes, or in a text, as :func:`parse_json`.

    Raises:
        DeradiffError: they hold none; of the kind asked for.
    """
    parsed = parse_json(content, what, error, remedy)
    if not isinstance(parsed, dict):
        raise error(f"{what} holds a {type(parsed).__name__}; expected a JSON object")
    return parsed


def parse_model(
    kind: type[M], content: bytes, what: str, remedy: str, error: type[DeradiffError] = RunFolderError
) -> M:
    """The record in some bytes of JSON.

    Args:
        kind: of the record.
        content: JSON.
        what: it is, for messages.
        remedy: what to do where it is damaged.
        error: kind of the error.

    Raises:
        DeradiffError: it is damaged; of the kind asked for.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError:  # read once more, slowly, to say what is wrong
        fields = parse_object(content, what, error, remedy)
    try:
        return kind.model_validate(fields)
    except ValidationError as why:
        raise error(f"{what} is damaged ({describe_errors(why, kind.model_fields)}); {remedy}") from why


def read_model(
    kind: type[M],
    path: Path,
    what: str,
    remedy: str,
    error: type[DeradiffError] = RunFolderError,
    *,
    inside: Path | None = None,
) -> M:
    """The record in a file of JSON; arguments as of `parse_model` and `read_whole`.

    Raises:
        DeradiffError: it can't be read, or is damaged; of the kind asked for.
    """
    content = read_whole(path, what, error, inside=inside)
    return parse_model(kind, content, f"{what} {_shown(path)}", remedy, error)


def read_yaml(path: Path, what: str, error: type[DeradiffError]) -> Any:
    """The value in a YAML file, of plain types alone.

    Raises:
        DeradiffError: it can't be read, is no YAML, or its aliases stand for too much; of the kind asked for.
    """
    import yaml

    text = read_text(path, what, error, _MAX_YAML_BYTES)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None and _expanded_nodes(node, {}) > _MAX_YAML_NODES:
            raise ValueError(f"with its aliases written out it has more than {_MAX_YAML_NODES:,} values")
        value = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as why:
        raise error(f"{what} {_shown(path)} can't be read ({reason_of(why)}); expected YAML") from why
    return value


def _expanded_nodes(node: Any, known: dict[int, int]) -> int:
    """How many values a YAML node stands for; of one that holds itself more than allowed.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    if id(node) not in known:
        known[id(node)] = _MAX_YAML_NODES + 1  # while its own values are counted
        parts = node.value
        if isinstance(parts, str):
            parts.encode("utf-8")
            parts = ()
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_expanded_nodes(child, known) for child in children)
    return known[id(node)]


def decode_image(content: bytes, what: str, error: type[DeradiffError]) -> "Image":
    """An image from the content of its file, decoded whole.

    Raises:
        DeradiffError: it is damaged, or far too large; of the kind asked for.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (*_UNDECODABLE, Image.DecompressionBombError) as why:
        raise error(f"{what} is no image that can be decoded ({reason_of(why)})") from why
    return image


def check_inside(folder: Path, path: Path) -> None:
    """Check that a path's file lies inside a folder, symbolic links resolved.

    Raises:
        RunFolderError: it lies outside.
    """
    with read_errors(path, "the path"):
        home, target = (Path(os.path.realpath(one)) for one in (folder, path))
    if target != home and home not in target.parents:
        raise RunFolderError(f"{path} is a link out of {folder}, to {target}; nothing is followed out of a run folder")


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line: the system's words, or the first line of the error's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


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
    except DeradiffError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a text that can't be a path
        full = isinstance(error, OSError) and error.errno in _FULL
        where = error.filename if isinstance(error, OSError) and error.filename else folder
        raise RunFolderError(
            f"can't write to {_shown(Path(os.fsdecode(where)))} ({reason_of(error)}); what is in {_shown(folder)} is "
            f"kept: {'make room' if full else 'put that right'}, and run the same command again"
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


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file from a byte on, each with the byte it starts at; a torn last line doesn't count.

    Raises:
        RunFolderError: it can't be read, or a line is far too long.
    """
    with read_errors(path, "the journal"), open_regular(path) as file:
        file.seek(start)
        while line := file.readline(MAX_LINE_BYTES):
            if line.endswith(b"\n"):
                yield start, line
            elif len(line) == MAX_LINE_BYTES:
                raise RunFolderError(f"{path} has a line of more than {MAX_LINE_BYTES:,} bytes; delete that line")
            start += len(line)


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


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, on disk before this returns."""
    with open_regular(path, "ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def regular_files(folder: Path, matches: Callable[[str], bool]) -> list[Path]:
    """The files of a folder by name, sorted; nothing is followed out of it.

    Raises:
        RunFolderError: one is a link out of the folder.
    """
    with read_errors(folder, "the folder"):
        paths = sorted(path for path in folder.iterdir() if matches(path.name)) if os.path.isdir(folder) else []
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
