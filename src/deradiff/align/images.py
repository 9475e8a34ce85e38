"""Images in files and inside tables, identified by the sha256 of their bytes and read on demand."""

import io
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from deradiff import tables
from deradiff.errors import AlignError

LARGEST = 200_000_000  # bytes of an image file


class TableCell(NamedTuple):
    """The location of an image inside a table: row and column of a .parquet or .arrow file."""

    file: Path
    row: int
    column: str


class ImageStore:
    """The images that a table names or embeds; only their keys and locations are in memory.

    Args:
        folder: relative paths start here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locations: dict[str, Path | TableCell] = {}
        self._keys: dict[str, str | None] = {}  # by path: tables name a file many times

    def add(self, value: Any, cell: TableCell) -> str | None:
        """Add an image and decode it once.

        Args:
            value: a cell's value: a path, the file's bytes, or ``datasets``' struct of both.
            cell: the location of the value.

        Returns:
            The key: sha256 of the file. None if the file is missing or can't be decoded completely.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return self._add_content(value, cell)
        if not isinstance(value, str):
            return None
        if value not in self._keys:
            self._keys[value] = self._add_file(self.folder / value)
        return self._keys[value]

    def read(self, key: str) -> Image.Image:
        """An image as RGB: upright as its EXIF data says, its transparent parts white, as viewers show them.

        Raises:
            AlignError: the file or table was changed or removed since the image was added.
        """
        location = self._locations[key]
        try:
            content = location.read_bytes() if isinstance(location, Path) else _read_cell(location)
        except (OSError, tables.TableError) as error:
            raise _changed_error(location) from error
        if sha256(content).hexdigest() != key:
            raise _changed_error(location)
        return _to_rgb(Image.open(io.BytesIO(content)))

    def _add_file(self, path: Path) -> str | None:
        try:
            if not path.is_file() or path.stat().st_size > LARGEST:  # a pipe or a device would never end
                return None
            return self._add_content(path.read_bytes(), path)
        except (OSError, ValueError):  # missing, or text that isn't a path
            return None

    def _add_content(self, content: bytes, location: Path | TableCell) -> str | None:
        key = sha256(content).hexdigest()
        if key not in self._locations:
            if not _is_whole(content):
                return None
            self._locations[key] = location
        return key


def _to_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    rgba = upright.convert("RGBA")  # the colours below transparency are ones that nobody saw
    ground = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(ground, rgba).convert("RGB")


def _read_cell(cell: TableCell) -> bytes:
    value = tables.cell(*cell)
    return value["bytes"] if isinstance(value, dict) else value


def _changed_error(location: Path | TableCell) -> AlignError:
    where = location
    if isinstance(location, TableCell):
        where = f"in row {location.row}, {location.column} of {location.file}"
    return AlignError(f"the image {where} was changed or removed since the pairs were read; read them again")


def _is_whole(content: bytes) -> bool:
    """Whether an image can be decoded completely; PIL's verify does not notice a truncated JPEG."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (64, 64))  # still reads the whole JPEG, at an eighth of its size
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return False
    return True
