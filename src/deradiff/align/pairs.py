"""Preference pairs: a prompt, an image that is preferred and one that isn't; from tables, Pick-a-Pic's among them."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from deradiff import tables
from deradiff.align.files import put
from deradiff.align.pictures import Cell, Pictures
from deradiff.align.preference import SkipError, preference, rows
from deradiff.errors import AlignError


@dataclass(frozen=True)
class Pair:
    """Two images of a prompt.

    Attributes:
        prompt: what both should show.
        chosen: key of the image that is preferred.
        rejected: key of the other.
        probability: that the chosen one is better, in [0, 1].
    """

    prompt: str
    chosen: str
    rejected: str
    probability: float = 1.0


@dataclass(frozen=True)
class Pairs:
    """Pairs and their images; a key is the sha256 of an image's file.

    Attributes:
        pairs: what can be learnt from.
        skipped: how many rows can't, by reason.
        pictures: the images, on disk.
    """

    pairs: list[Pair]
    skipped: Counter[str]
    pictures: Pictures

    def image(self, key: str) -> Image.Image:
        """An image, RGB, read from disk.

        Raises:
            AlignError: it was changed or removed since the pairs were read.
        """
        return self.pictures.read(key)

    def latent(self, key: str) -> Tensor | None:
        """The latent that an image was decoded from, without a row, where one is stored."""
        file = latent_file(self.pictures.folder, key)
        return load_file(file)["latent"] if file.is_file() else None

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 over prompts, images and probabilities, in order."""
        digest = sha256()
        for pair in self.pairs:
            digest.update(json.dumps(astuple(pair)).encode())
        return digest.hexdigest()


def read_pairs(
    path: str | Path, split: str | None = None, advance: Callable[[int], object] = lambda count: None
) -> Pairs:
    """Pairs from a table, or from a folder that holds one.

    Args:
        path: .csv, .tsv, .jsonl, .parquet or .arrow, a folder of these, or one saved by ``datasets``.  Columns are
            prompt, chosen, rejected and perhaps probability (that the chosen one is better; else 1), or Pick-a-Pic's
            caption, jpg_0, jpg_1, label_0, label_1 and perhaps has_label.  Images are paths relative to the folder,
            or bytes.
        split: which one of a folder that holds several.
        advance: told how many more rows are read.

    Raises:
        AlignError: columns are missing, or no row can be learnt from; says why.
        TableError: nothing there, an unknown kind, a damaged table, or a split that can't be told.
    """
    path = Path(path)
    pairs, skipped = list[Pair](), Counter[str]()
    pictures = Pictures(path if path.is_dir() else path.parent)
    for file in tables.files(path, split):
        for number, row in enumerate(rows(file)):
            try:
                pairs.append(_pair(row, pictures, file, number))
            except SkipError as reason:
                skipped[str(reason)] += 1
            advance(1)
    if not pairs:
        counts = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no rows"
        raise AlignError(f"{path} holds no pair that can be learnt from ({counts}); expected two images, one preferred")
    return Pairs(pairs, skipped, pictures)


def write_pairs(folder: Path, pairs: Sequence[Pair], images: Mapping[str, Path]) -> None:
    """Write a folder that :func:`read_pairs` reads; its table is written last and whole, so it's complete or not there.

    Args:
        folder: gets ``pairs.jsonl``, and ``images/`` with those files that aren't in the folder yet.
        pairs: their keys are those of ``images``.
        images: the file of each image.

    Raises:
        AlignError: the folder holds other pairs, or can't be written.
    """
    names: dict[str, str] = {}
    for key, file in images.items():
        if file.is_relative_to(folder):
            names[key] = file.relative_to(folder).as_posix()
        else:
            content = file.read_bytes()
            names[key] = f"images/{sha256(content).hexdigest()}{file.suffix}"
            put(folder / names[key], content)
    named = (replace(pair, chosen=names[pair.chosen], rejected=names[pair.rejected]) for pair in pairs)
    content, table = "".join(json.dumps(asdict(pair)) + "\n" for pair in named).encode(), folder / "pairs.jsonl"
    if table.exists() and table.read_bytes() != content:
        raise AlignError(
            f"{table} holds preferences of other prompts, samples or scores, which an anchor may have learnt from; "
            "take another folder, or delete that file"
        )
    put(table, content)


def latent_file(folder: Path, key: str) -> Path:
    """Where the latent of an image is stored, as ``latent``."""
    return folder / "latents" / f"{key}.safetensors"


def _pair(row: dict[str, Any], pictures: Pictures, file: Path, number: int) -> Pair:
    said = preference(row)
    chosen, rejected = (
        pictures.add(row[column], Cell(file, number, column)) for column in (said.chosen, said.rejected)
    )
    if chosen is None or rejected is None:
        raise SkipError("broken image")
    if chosen == rejected:
        raise SkipError("equal images")
    return Pair(said.prompt, chosen, rejected, said.probability)
