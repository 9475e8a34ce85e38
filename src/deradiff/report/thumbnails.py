"""The pictures inside a page: of each prompt and seed one strip of small images, a tile a lam.

A page moves through lam by showing another tile of a strip, so nothing is decoded while it does. All strips of a page
share one size: the largest at which they are expected to fit in `BUDGET`, measured on some of them.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from os import cpu_count
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from deradiff.errors import ResultsError
from deradiff.reading import decode_image, read_whole
from deradiff.report.cache import Cache
from deradiff.results import Results

SMALL = 128  # px: images up to this size are embedded losslessly, if they fit, and shown with crisp pixels
BUDGET = 10_100_000  # characters of base64 in a page, which has 5 MB of other things
_MEASURED = 8  # strips
_WIDEST = 16383  # px, of a WebP
_REDUCING_GAP = 1.25  # px that images are reduced to by averages, for one of a tile's, before they are interpolated
_VERSION = 1  # of all of this, in keys of the cache: another one makes strips anew
_GROUND = (128, 128, 128)  # beside an image of another shape than the tile


_Side = Annotated[int, Field(ge=1, le=320)]  # px


class Format(NamedTuple):
    """How tiles are embedded: at most ``side`` px wide and high, at a WebP quality, None for lossless."""

    side: _Side
    quality: Annotated[int, Field(ge=0, le=100)] | None


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


class _Layout(BaseModel):
    """How strips are made: their format, how many fit, the size of a tile, and whether the images are small."""

    format: Format
    count: Annotated[int, Field(ge=0)]
    size: tuple[_Side, _Side]
    is_small: bool


class _Strip(BaseModel):
    """A strip, the distances of its tiles to that of lam = 0 where that was sampled, and which are black."""

    content: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
    distance: list[float | None]
    is_black: list[bool]


def make_strips(
    tables: Sequence[Results], *, budget: int = BUDGET, progress: Callable[[int], None] = lambda count: None
) -> list[Strips]:
    """The strips of one or more tables, all with tiles of the same size.

    Args:
        tables: their images' files are read, but for those whose strips are in the run's cache.
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
    caches = [Cache(table.folder) for table in tables]
    with ThreadPoolExecutor(cpu_count()) as pool:  # Pillow lets other threads run while it decodes and encodes
        layout = _cached_layout(tables, rows, budget, caches[0], pool)
        kept = rows[: layout.count]

        def strip_of(row: _Row) -> _Strip:
            strip = _cached_strip(tables, row, layout, caches[row.table])
            progress(len(strip.is_black))
            return strip

        strips = dict(zip(kept, pool.map(strip_of, kept), strict=True))
    for cache in caches:
        cache.save()
    is_crisp = layout.is_small and layout.format.quality is None
    return [_gather(table, number, strips, layout.size, is_crisp) for number, table in enumerate(tables)]


def data_uri(image: Image.Image, largest: int) -> str:
    """One image as WebP in a data URI: lossless if small, else reduced to ``largest`` px."""
    is_small = max(image.size) <= SMALL
    pixels = image.convert("RGB")
    pixels.thumbnail((largest, largest))
    return f"data:image/webp;base64,{_webp(pixels, None if is_small else 85)}"


def _cached_layout(
    tables: Sequence[Results], rows: Sequence[_Row], budget: int, cache: Cache, pool: ThreadPoolExecutor
) -> _Layout:
    some = [rows[index] for index in sorted({len(rows) * k // _MEASURED for k in range(_MEASURED)})] if rows else []
    files = [file for row in some for file in _files(tables, row)]
    key = cache.key(files, _VERSION, budget, len(rows), max(len(table.lams) for table in tables))
    layout = cache.get(key, _Layout)
    if layout is None:
        layout = _choose_layout(tables, some, len(rows), budget, pool)
        cache.add(key, layout)
    return layout


def _choose_layout(
    tables: Sequence[Results], some: Sequence[_Row], count: int, budget: int, pool: ThreadPoolExecutor
) -> _Layout:
    """The best format in which rows fit, by some of them; of the smallest one as many as fit."""
    if not some:
        return _Layout(format=_LOSSLESS, count=0, size=(1, 1), is_small=False)
    images = list(pool.map(partial(_load_row, tables, side=_FORMATS[0].side), some))
    largest = max((image.size for row in images for image in row), key=max)
    is_small = max(largest) <= SMALL
    widest = max(len(table.lams) for table in tables)
    for chosen in (*([_LOSSLESS] if is_small else []), *_FORMATS, _SMALLEST):
        size = _tile_size(largest, chosen.side)
        if size[0] * widest > _WIDEST:
            continue
        strips = pool.map(partial(_encode, size=size, chosen=chosen, reference=None), images)
        expected = float(np.mean([len(strip.content) for strip in strips]))
        if expected * count <= budget or chosen == _SMALLEST:
            fitting = max(1, min(count, int(budget / expected)))
            return _Layout(format=chosen, count=fitting, size=size, is_small=is_small)
    raise ResultsError(f"{widest:,} lams are more than a page can show; select fewer of them")


def _cached_strip(tables: Sequence[Results], row: _Row, layout: _Layout, cache: Cache) -> _Strip:
    reference, files = _reference_tile(tables, row), _files(tables, row)
    key = cache.key(files, _VERSION, layout.format, layout.size, reference)
    strip = cache.get(key, _Strip)
    if strip is None or not len(strip.distance) == len(strip.is_black) == len(files):
        strip = _encode(_load_row(tables, row, layout.format.side), layout.size, layout.format, reference)
        cache.add(key, strip)
    return strip


def _tile_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _files(tables: Sequence[Results], row: _Row) -> list[Path]:
    """The images of a prompt and seed, by lam."""
    table = tables[row.table]
    lams = np.flatnonzero(table.images[row.prompt, row.seed] != "").tolist()
    return [table.image(row.prompt, row.seed, lam) for lam in lams]


def _load_row(tables: Sequence[Results], row: _Row, side: int) -> list[Image.Image]:
    """Them, reduced to ``side`` px."""
    return [_load(file, tables[row.table].folder, side) for file in _files(tables, row)]


def _load(file: Path, folder: Path | None, side: int) -> Image.Image:
    content = read_whole(file, "the image", ResultsError, inside=folder)
    enough = round(side * _REDUCING_GAP)
    image = decode_image(content, f"the image {file}", ResultsError, at_least=(enough, enough)).convert("RGB")
    image.thumbnail((side, side), reducing_gap=_REDUCING_GAP)
    return image


def _reference_tile(tables: Sequence[Results], row: _Row) -> int | None:
    """Which tile of a strip is that of lam = 0."""
    table = tables[row.table]
    lams = np.array(table.lams)[table.images[row.prompt, row.seed] != ""].tolist()
    return lams.index(0) if 0 in lams else None


def _encode(images: Iterable[Image.Image], size: tuple[int, int], chosen: Format, reference: int | None) -> _Strip:
    tiles = [_fit(image, size) for image in images]
    strip = Image.new("RGB", (size[0] * len(tiles), size[1]))
    for number, tile in enumerate(tiles):
        strip.paste(tile, (number * size[0], 0))
    pixels = np.stack([np.asarray(tile, dtype=np.float32) for tile in tiles])
    distance: list[float | None] = [None] * len(tiles)
    if reference is not None:
        squares = np.square(pixels - pixels[reference]).mean(axis=(1, 2, 3), dtype=np.float64)
        distance = (np.sqrt(squares) / 255).tolist()
    is_black = (pixels.max(axis=(1, 2, 3)) == 0).tolist()
    return _Strip(content=_webp(strip, chosen.quality), distance=distance, is_black=is_black)


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
    image.save(buffer, "WEBP", **settings)
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
            distance[(*pair, lams)] = np.array(strip.distance, float)
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
