"""Pictures in files and inside tables, known by the sha256 of their bytes and read when they are asked for."""

import io
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from deradiff import tables
from deradiff.errors import AlignError


class Cell(NamedTuple):
    """Where a table embeds a picture: row and column of a .parquet or .arrow file."""

    file: Path
    row: int
    column: str


class Pictures:
    """What the values of a table name or embed; only keys and places are held.

    Args:
        folder: what paths are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, Path | Cell] = {}
        self._keys: dict[str, str | None] = {}  # of paths: tables name a file many times

    def add(self, value: Any, cell: Cell) -> str | None:
        """The key of a picture, which is decoded when it is first seen.

        Args:
            value: of a cell of a table: a path, the file's bytes, or ``datasets``' struct of both.
            cell: where it is.

        Returns:
            The sha256 of the file; None where it is missing or can't be decoded to its end.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return self._add(value, cell)
        if not isinstance(value, str):
            return None
        if value not in self._keys:
            self._keys[value] = self._file(self.folder / value)
        return self._keys[value]

    def read(self, key: str) -> Image.Image:
        """A picture as RGB.

        Raises:
            AlignError: the file or table was changed or removed since the picture was added.
        """
        place = self._places[key]
        try:
            content = place.read_bytes() if isinstance(place, Path) else _embedded(place)
        except (OSError, tables.TableError) as error:
            raise _changed(place) from error
        if sha256(content).hexdigest() != key:
            raise _changed(place)
        return Image.open(io.BytesIO(content)).convert("RGB")

    def _file(self, path: Path) -> str | None:
        try:
            return self._add(path.read_bytes(), path)
        except (OSError, ValueError):  # missing, a folder, or a text that is no path
            return None

    def _add(self, content: bytes, place: Path | Cell) -> str | None:
        key = sha256(content).hexdigest()
        if key not in self._places:
            if not _is_whole(content):
                return None
            self._places[key] = place
        return key


def _embedded(cell: Cell) -> bytes:
    value = tables.cell(*cell)
    return value["bytes"] if isinstance(value, dict) else value


def _changed(place: Path | Cell) -> AlignError:
    where = place if isinstance(place, Path) else f"in row {place.row}, {place.column} of {place.file}"
    return AlignError(f"the image {where} was changed or removed since the pairs were read; read them again")


def _is_whole(content: bytes) -> bool:
    """Whether a picture can be decoded; PIL's verify would not see that the end of a JPEG is missing."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (64, 64))  # a JPEG is read to its end still, but at an eighth of its size
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return False
    return True
