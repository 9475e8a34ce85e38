"""Images in files and inside tables, identified by the sha256 of their bytes and read on demand."""

import io
import stat
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from deradiff import tables
from deradiff.errors import AlignError, abbreviate

LARGEST = 200_000_000  # bytes of an image file


class TableCell(NamedTuple):
    """The location of an image inside a table: row and column of a .parquet or .arrow file."""

    file: Path
    row: int
    column: str


class ImageError(Exception):
    """An image that can't be used, as a reason that many may share.

    Attributes:
        example: which image it is, and where it was looked for.
    """

    def __init__(self, reason: str, example: str) -> None:
        super().__init__(reason)
        self.example = example


class ImageStore:
    """The images that a table names or embeds; only their keys and locations are in memory.

    Args:
        folder: relative paths start here.
        allow_outside: whether images may lie outside of it.
    """

    def __init__(self, folder: Path, *, allow_outside: bool = False) -> None:
        self.folder = folder
        self._home = None if allow_outside else folder.resolve()
        self._locations: dict[str, Path | TableCell] = {}
        self._keys: dict[str, str | ImageError] = {}  # by path: tables name a file many times

    def add(self, value: Any, cell: TableCell) -> str:
        """Add an image and decode it once.

        Args:
            value: a cell's value: a path, the file's bytes, or ``datasets``' struct of both.
            cell: the location of the value.

        Returns:
            The key: sha256 of the file.

        Raises:
            ImageError: it is missing, too large, no regular file, or can't be decoded completely.
            AlignError: it lies outside of the folder.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return self._add_content(value, cell)
        if not isinstance(value, str) or not value.strip():
            raise ImageError("missing image", _describe(cell))
        if value not in self._keys:
            try:
                self._keys[value] = self._add_file(value)
            except ImageError as error:
                self._keys[value] = error
        key = self._keys[value]
        if isinstance(key, ImageError):
            raise key
        return key

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

    def _add_file(self, name: str) -> str:
        example = f"{abbreviate(name)!r} in {self.folder}"
        path = self.folder / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
                raise ImageError("broken image", f"{example} (no regular file)")
            if status.st_size > LARGEST:
                raise ImageError("broken image", f"{example} (more than {LARGEST:,} bytes)")
            if self._home is not None and not path.resolve().is_relative_to(self._home):
                raise AlignError(
                    f"the image {name!r} leads out of {self.folder}, to {path.resolve()}; images lie in the table's "
                    "folder, unless --allow-outside (allow_outside=True) is given"
                )
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageError("missing image", f"{example} (looked for at {path.absolute()})") from error
        except (OSError, ValueError) as error:  # can't be read, or text that isn't a path
            raise ImageError("broken image", f"{example} ({error})") from error
        return self._add_content(content, path)

    def _add_content(self, content: bytes, location: Path | TableCell) -> str:
        key = sha256(content).hexdigest()
        if key not in self._locations:
            if len(content) > LARGEST or not _is_whole(content):
                raise ImageError("broken image", _describe(location))
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
    return AlignError(
        f"the image {_describe(location)} was changed or removed since the pairs were read; read them again"
    )


def _describe(location: Path | TableCell) -> str:
    if isinstance(location, TableCell):
        return f"in row {location.row + 1}, {location.column} of {location.file}"
    return str(location)


def _is_whole(content: bytes) -> bool:
    """Whether an image can be decoded completely; PIL's verify does not notice a truncated JPEG."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.draft("RGB", (64, 64))  # still reads the whole JPEG, at an eighth of its size
                image.load()
    except Exception:  # noqa: BLE001  (whatever PIL's decoders stumble over, a bomb among it)
        return False
    return True
