"""Runs whose images are painted instead of sampled: every file and record is there, and no model is needed."""

import io
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deradiff.runs.cells import WHOLE, Cell, Request, Shard, blocks, image_name
from deradiff.runs.missing import cells_of_shard
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo
from deradiff.runs.results import journalled_images, load_results
from deradiff.runs.store import Store

JOURNAL, SCORES, REQUESTS = "cells.jsonl", "rewards.jsonl", "requests.jsonl"
SIDE = 8
AXES: dict[str, Any] = {"prompts": ["one", "two", "three"], "seeds": [0, 1, 2, 3], "lams": [-1, 0, 1]}
Q = 2.0  # of every trajectory


def content(key: str, version: int = 0) -> bytes:
    """The file of an image, of random colours."""
    colours = np.random.default_rng([version, int(key, 16)]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, format="PNG")
    return file.getvalue()


def paint(store: Store, cells: Iterable[Cell], version: int = 0, shard: Shard = WHOLE) -> None:
    """Some images; those that are there already come out otherwise in another version."""
    with store.writing(shard) as writer:
        for block in blocks(cells, store.recipe.batch_size):
            keys = [store.keys(cell) for cell in block]
            for key in keys:
                writer.save(store.folder / image_name(key), content(key, version))
            digests = [sha256(content(key, version)).hexdigest() for key in keys]
            together = tuple(sorted({cell.lam for cell in block})) if store.recipe.depends_on_lams else ()
            info = SamplingInfo(nfe=len(block), nfe_published=2 * len(block), seconds=0.5, lams=together)
            writer.append(CellsRecord.of(block, keys, digests, {"q": [Q] * len(block)}, info))


def painted(folder: Path, shard: Shard = WHOLE, recipe: dict[str, Any] | None = None, **axes: Any) -> Store:
    """A run that has been asked for some images, and has those of a shard."""
    given = {"model": "m", "anchor": "a", "batch_size": 3, **(recipe or {})}
    store, request = Store.at(folder, Recipe(**given)), Request(**{**AXES, **axes})
    paint(store, cells_of_shard(store.recipe, [request], shard), shard=shard)
    store.add_request(request)
    return store


def pixels(store: Store, guidance: float | None = None) -> NDArray[np.float64]:
    """The pixels of a run's table, (prompts, seeds, lams, H, W, 3) in [0, 1]; nan where there is no image."""
    files = load_results(store, guidance).images
    found = np.full((*files.shape, SIDE, SIDE, 3), np.nan)
    for place in np.ndindex(files.shape):
        if files[place]:
            found[place] = np.asarray(Image.open(files[place]).convert("RGB")) / 255
    return found


def cells_of(store: Store) -> list[Cell]:
    """The cells that are journalled."""
    return list(journalled_images(store))


def lines_of(store: Store, name: str) -> list[str]:
    """The lines of a journal."""
    return (store.folder / name).read_text().splitlines()


def write_lines(store: Store, name: str, lines: list[str]) -> None:
    """A journal of other lines."""
    (store.folder / name).write_text("".join(line + "\n" for line in lines))
