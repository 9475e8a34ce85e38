"""Reading files that others wrote: every read is guarded, and says what is wrong and where.

Regular files alone, of a limited size, nothing followed out of a folder; texts that are no UTF-8, damaged or deeply
nested JSON and YAML, records, and images that can't be decoded are errors in one sentence.
"""

import errno
import io
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from deradiff.errors import DeradiffError, RunFolderError, reason_of, shown_path
from deradiff.validation import describe_errors

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 256 << 20  # of a file that is read into memory as a whole
MAX_LINE_BYTES = 64 << 20
_MAX_YAML_BYTES = 1 << 20
_MAX_YAML_NODES = 100_000  # with all aliases written out
_UNDECODABLE = (  # what PIL raises for damaged files
    *(OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(MemoryError, struct.error, zlib.error),
)

M = TypeVar("M", bound=BaseModel)


@contextmanager
def read_errors(path: Path, what: str, error: type[DeradiffError] = RunFolderError) -> Generator[None]:
    """Say what can't be read and why.

    Raises:
        DeradiffError: for every OSError, and for texts that can't be paths; of the kind asked for.
    """
    try:
        yield
    except DeradiffError:
        raise
    except UnicodeDecodeError as why:
        raise error(
            f"{what} {shown_path(path)} is not UTF-8 text ({why.reason} at byte {why.start}); save it so"
        ) from why
    except (OSError, ValueError) as why:
        raise error(f"{what} {shown_path(path)} can't be read ({reason_of(why)})") from why


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


def open_regular(path: Path, mode: str = "rb") -> IO[bytes]:
    """Open a regular file in binary; a pipe or a device, which may never end, is an OSError."""
    # without waiting, as for the other end of a pipe
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(path, mode, opener=lambda name, own: os.open(name, own | flags, 0o666))  # noqa: SIM115  (returned)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return file


def check_inside(folder: Path, path: Path) -> None:
    """Check that a path's file lies inside a folder, symbolic links resolved.

    Raises:
        RunFolderError: it lies outside.
    """
    with read_errors(path, "the path"):
        home, target = (Path(os.path.realpath(one)) for one in (folder, path))
    if target != home and home not in target.parents:
        raise RunFolderError(f"{path} is a link out of {folder}, to {target}; nothing is followed out of a run folder")


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
                raise error(f"{what} {shown_path(path)} has {size:,} bytes; expected at most {limit:,}")
            return file.read()


def read_text(path: Path, what: str, error: type[DeradiffError] = RunFolderError, limit: int = MAX_BYTES) -> str:
    """The text of a regular file, in UTF-8, without its byte order mark.

    Raises:
        DeradiffError: as `read_whole`; or it isn't UTF-8.
    """
    with read_errors(path, what, error):
        return read_whole(path, what, error, limit=limit).decode("utf-8-sig")


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


def read_object(
    path: Path, what: str, error: type[DeradiffError] = RunFolderError, *, inside: Path | None = None
) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DeradiffError: it can't be read, or holds no JSON object; of the kind asked for.
    """
    return parse_object(read_whole(path, what, error, inside=inside), f"{what} {shown_path(path)}", error)


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
    return parse_model(kind, content, f"{what} {shown_path(path)}", remedy, error)


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
        raise error(f"{what} {shown_path(path)} can't be read ({reason_of(why)}); expected YAML") from why
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


def decode_image(
    content: bytes, what: str, error: type[DeradiffError], *, at_least: tuple[int, int] | None = None
) -> "Image":
    """An image from the content of its file, decoded whole.

    Args:
        content: of the file.
        what: it is, for messages.
        error: kind of the error.
        at_least: width and height that will do: JPEG is decoded faster at the smallest of its sizes that has these.

    Raises:
        DeradiffError: it is damaged, or far too large; of the kind asked for.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content))
        if at_least is not None:
            image.draft(None, at_least)
        image.load()
    except (*_UNDECODABLE, Image.DecompressionBombError) as why:
        raise error(f"{what} is no image that can be decoded ({reason_of(why)})") from why
    return image
