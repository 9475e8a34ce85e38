"""Runs that are written instead of sampled, as large as wanted. Part of benchmarks/runs.py."""

import io
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from deradiff.runs.cells import Cell, Request, blocks, image_name
from deradiff.runs.fingerprint import with_hashes
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo, ScoreRecord
from deradiff.runs.store import Store
from deradiff.testbed import EMBEDDED

SIDE, STEPS = 8, 20
_LINKS = 60_000  # of a file: ext4 allows 65,000


def store_at(folder: Path) -> Store:
    """A run of the embedded pipeline, without images."""
    return Store.at(folder, with_hashes(Recipe(model=EMBEDDED, anchor=EMBEDDED, steps=STEPS)))


def request(prompts: int, seeds: int, lams: int) -> Request:
    """Prompts of a usual length, lams from 0 to 1."""
    texts = [
        f"a photograph of scene number {number}, with some more words that say what it shows"
        for number in range(prompts)
    ]
    return Request(prompts=texts, seeds=range(seeds), lams=np.linspace(0, 1, lams).round(10).tolist(), guidances=[1.0])


def journal(store: Store, cells: Iterable[Cell], hashes: dict[str, str]) -> None:
    """Note cells as a sweep does, a line a block, with the statistics of Euler-ancestral.

    Args:
        store: of the run.
        cells: in the order in which they are sampled.
        hashes: key -> sha256 of the image's file; of one that isn't there the key, twice.
    """
    rng = np.random.default_rng(0)
    with store.writing() as writer, writer.path.open("ab") as file:
        for block in blocks(cells, store.recipe.batch_size):
            keys, calls = [store.keys(cell) for cell in block], 2 * STEPS * len(block)
            digests = [hashes.get(key, 2 * key) for key in keys]
            rows = {name: rng.exponential(size=len(block)).tolist() for name in ("q", "implicit_reward", "log_weight")}
            info = SamplingInfo(nfe=calls, nfe_published=calls, seconds=1.0)
            file.write(CellsRecord.of(block, keys, digests, rows, info).model_dump_json().encode() + b"\n")


def link_images(store: Store, cells: Iterable[Cell]) -> None:
    """An entry in its folder for each cell's image: a hard link to one of a few files, which costs no disk."""
    _make_folders(store)
    picture = store.folder / "images" / "picture"
    for number, cell in enumerate(cells):
        if number % _LINKS == 0:
            picture.unlink(missing_ok=True)
            picture.write_bytes(_picture(number))
        os.link(picture, store.image(cell))
    picture.unlink(missing_ok=True)


def paint(store: Store, cells: Iterable[Cell]) -> dict[str, str]:
    """A small PNG file of its own for each cell: key -> sha256."""
    _make_folders(store)
    hashes = {}
    for number, cell in enumerate(cells):
        content, key = _picture(number), store.keys(cell)
        (store.folder / image_name(key)).write_bytes(content)
        hashes[key] = sha256(content).hexdigest()
    return hashes


def scores(store: Store, cells: Iterable[Cell], hashes: dict[str, str]) -> None:
    """Scores of rewards a, which rises along lam, and b, which falls by less than a tenth; as a run records them."""
    rng = np.random.default_rng(1)
    with store.scoring() as writer, writer.path.open("ab") as file:
        for name, slope in (("a", 1.0), ("b", -0.05)):
            for block in blocks(cells, 8):
                keys = tuple(store.keys(cell) for cell in block)
                values = tuple(1 + slope * cell.lam + 0.1 * rng.normal() for cell in block)
                record = ScoreRecord(reward=name, keys=keys, sha256=tuple(hashes[key] for key in keys), scores=values)
                file.write(record.model_dump_json().encode() + b"\n")


def _make_folders(store: Store) -> None:
    for number in range(256):
        (store.folder / "images" / f"{number:02x}").mkdir(parents=True, exist_ok=True)


def _picture(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()
