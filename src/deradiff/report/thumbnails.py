"""The pictures inside a page: of each prompt and seed one strip of small images, a tile a lam.

A page moves through lam by showing another tile of a strip, so nothing is decoded while it does. All strips of a page
share one size: the largest at which they are expected to fit in `BUDGET`, measured on some of them.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deradiff.errors import ResultsError
from deradiff.reading import decode_image, read_whole
from deradiff.results import Results

SMALL = 128  # px: images up to this size are embedded losslessly, if they fit, and shown with crisp pixels
BUDGET = 12_000_000  # characters of base64 in a page
_MEASURED = 8  # strips
_WIDEST = 16383  # px, of a WebP
_GROUND = (128, 128, 128)  # beside an image of another shape than the tile


class Format(NamedTuple):
    """How tiles are embedded: at most ``side`` px wide and high, at a WebP quality, None for lossless."""

    side: int
    quality: int | None


_LOSSLESS = Format(SMALL, None)
_FORMATS = (Format(320, 80), Format(256, 75), Format(192, 70), Format(160, 60), Format(128, 45), Format(96, 45))
_SMALLEST = Format(64, 45)


@dataclass(frozen=True, kw_only=True)
class Strips:
    """The pictures of one run: P prompts, S seeds, L lams.

    Attributes:
        size: of a tile, width and height in px.
        is_crisp: whether tiles are the images themselves, pixel by pixel.
        content: (P, S), the strips as WebP in base64; empty where no image was sampled, or none is embedded.
        tiles: (P, S, L), which tile of its strip shows a lam; -1 for none.
        distance: (P, S, L), root of the mean squared difference to the image at lam = 0, in [0, 1]; nan where unknown.
        is_black: (P, S, L), whether an image is black throughout, as safety checkers leave it.
        n_embedded: how many prompts, from the first on, have their images in the page.
    """

    size: tuple[int, int]
    is_crisp: bool
    content: NDArray[np.object_]
    tiles: NDArray[np.int64]
    distance: NDArray[np.float64]
    is_black: NDArray[np.bool_]
    n_embedded: int


class _Row(NamedTuple):
    """The place of a strip: the table, the prompt and the seed."""

    table: int
    prompt: int
    seed: int


class _Strip(NamedTuple):
    content: str
    distance: NDArray[np.float64]  # of its tiles to that of lam = 0; nan where that wasn't sampled
    is_black: list[bool]


def make_strips(
    tables: Sequence[Results], *, budget: int = BUDGET, progress: Callable[[int], None] = lambda count: None
) -> list[Strips]:
    """The strips of one or more tables, all with tiles of the same size.

    Args:
        tables: their images' files are read.
        budget: characters of base64 that all strips together may take.
        progress: called with the number of images that were added.

    Raises:
        ResultsError: an image can't be read.
    """
    rows = [
        _Row(number, *map(int, pair))
        for number, table in enumerate(tables)
        for pair in np.argwhere((table.images != "").any(axis=2))
    ]
    rows.sort(key=lambda row: (row.prompt, row.table, row.seed))
    chosen, count, size, is_small = _choose_format(tables, rows, budget)
    kept = rows[:count]

    def strip_of(row: _Row) -> _Strip:
        strip = _encode(_load_row(tables, row, chosen.side), size, chosen, _reference_tile(tables, row))
        progress(len(strip.is_black))
        return strip

    with ThreadPoolExecutor(cpu_count()) as pool:  # Pillow lets other threads run while it decodes and encodes
        strips = dict(zip(kept, pool.map(strip_of, kept), strict=True))
    is_crisp = is_small and chosen.quality is None
    return [_gather(table, number, strips, size, is_crisp) for number, table in enumerate(tables)]


def data_uri(image: Image.Image, largest: int) -> str:
    """One image as WebP in a data URI: lossless if small, else reduced to ``largest`` px."""
    is_small = max(image.size) <= SMALL
    pixels = image.convert("RGB")
    pixels.thumbnail((largest, largest))
    return f"data:image/webp;base64,{_webp(pixels, None if is_small else 85)}"


def _choose_format(
    tables: Sequence[Results], rows: Sequence[_Row], budget: int
) -> tuple[Format, int, tuple[int, int], bool]:
    """The best format that fits, how many rows fit in it, the size of its tiles, and whether the images are small."""
    if not rows:
        return _LOSSLESS, 0, (1, 1), False
    some = [rows[index] for index in sorted({len(rows) * k // _MEASURED for k in range(_MEASURED)})]
    images = [_load_row(tables, row, _FORMATS[0].side) for row in some]
    largest = max((image.size for row in images for image in row), key=max)
    is_small = max(largest) <= SMALL
    widest = max(len(table.lams) for table in tables)
    for chosen in (*([_LOSSLESS] if is_small else []), *_FORMATS, _SMALLEST):
        size = _tile_size(largest, chosen.side)
        if size[0] * widest > _WIDEST:
            continue
        expected = float(np.mean([len(_encode(row, size, chosen).content) for row in images]))
        if expected * len(rows) <= budget or chosen == _SMALLEST:
            return chosen, max(1, min(len(rows), int(budget / expected))), size, is_small
    raise ResultsError(f"{widest:,} lams are more than a page can show; select fewer of them")


def _tile_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _load_row(tables: Sequence[Results], row: _Row, side: int) -> list[Image.Image]:
    """The images of a prompt and seed, by lam, reduced to ``side`` px."""
    table = tables[row.table]
    lams = np.flatnonzero(table.images[row.prompt, row.seed] != "").tolist()
    return [_load(table.image(row.prompt, row.seed, lam), table.folder, side) for lam in lams]


def _load(file: Path, folder: Path | None, side: int) -> Image.Image:
    content = read_whole(file, "the image", ResultsError, inside=folder)
    image = decode_image(content, f"the image {file}", ResultsError).convert("RGB")
    image.thumbnail((side, side))
    return image


def _reference_tile(tables: Sequence[Results], row: _Row) -> int | None:
    """Which tile of a strip is that of lam = 0."""
    table = tables[row.table]
    lams = np.array(table.lams)[table.images[row.prompt, row.seed] != ""].tolist()
    return lams.index(0) if 0 in lams else None


def _encode(
    images: Iterable[Image.Image], size: tuple[int, int], chosen: Format, reference: int | None = None
) -> _Strip:
    tiles = [_fit(image, size) for image in images]
    strip = Image.new("RGB", (size[0] * len(tiles), size[1]))
    for number, tile in enumerate(tiles):
        strip.paste(tile, (number * size[0], 0))
    pixels = np.stack([np.asarray(tile, dtype=np.float32) for tile in tiles])
    distance = np.full(len(tiles), np.nan)
    if reference is not None:
        distance = np.sqrt(np.square(pixels - pixels[reference]).mean(axis=(1, 2, 3), dtype=np.float64)) / 255
    return _Strip(_webp(strip, chosen.quality), distance, (pixels.max(axis=(1, 2, 3)) == 0).tolist())


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image as a tile; one of another shape stands in its middle."""
    if image.size == size:
        return image
    image = image.copy()
    image.thumbnail(size)
    if image.size == size:
        return image
    tile = Image.new("RGB", size, _GROUND)
    tile.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return tile


def _webp(image: Image.Image, quality: int | None) -> str:
    buffer, settings = BytesIO(), dict[str, Any](lossless=True) if quality is None else {"quality": quality}
    image.save(buffer, "WEBP", method=4, **settings)
    return b64encode(buffer.getvalue()).decode()


def _gather(table: Results, number: int, strips: dict[_Row, _Strip], size: tuple[int, int], is_crisp: bool) -> Strips:
    content = np.full(table.shape[:2], "", dtype=object)
    tiles, is_black = np.full(table.shape, -1), np.zeros(table.shape, bool)
    distance = np.full(table.shape, np.nan)
    for row, strip in strips.items():
        if row.table == number:
            pair = (row.prompt, row.seed)
            lams = np.flatnonzero(table.images[pair] != "")
            content[pair], tiles[(*pair, lams)] = strip.content, np.arange(len(lams))
            is_black[(*pair, lams)] = strip.is_black
            distance[(*pair, lams)] = strip.distance
    embedded = (content != "").any(axis=1)
    return Strips(
        size=size,
        is_crisp=is_crisp,
        content=content,
        tiles=tiles,
        distance=distance,
        is_black=is_black,
        n_embedded=int(np.flatnonzero(embedded).max(initial=-1)) + 1,
    )
