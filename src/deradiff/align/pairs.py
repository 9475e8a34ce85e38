"""Preference pairs (a prompt, a chosen and a rejected image), read from tables in this layout or Pick-a-Pic's."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from deradiff import tables
from deradiff.align.checkpoint import load_latent
from deradiff.align.images import ImageError, ImageStore, TableCell
from deradiff.errors import AlignError
from deradiff.reading import exists, read_whole
from deradiff.writing import write_whole

_COLUMNS = ("prompt", "chosen", "rejected"), ("probability",)
_PICK_A_PIC = (
    ("caption", "jpg_0", "jpg_1", "label_0", "label_1"),
    ("has_label",),
)  # Kirstain et al. 2023, arXiv 2305.01569


@dataclass(frozen=True)
class Pair:
    """Two images of a prompt.

    Attributes:
        prompt: the text that both should show.
        chosen: key of the preferred image.
        rejected: key of the other image.
        probability: that the chosen image is better, in [0, 1].
    """

    prompt: str
    chosen: str
    rejected: str
    probability: float = 1.0


@dataclass(frozen=True)
class Pairs:
    """Pairs and their images; a key is the sha256 of an image's file.

    Attributes:
        pairs: the usable pairs.
        skipped: number of unusable rows, by reason.
        images: the images, on disk.
        examples: of reasons that concern an image, the first one that it holds for.
    """

    pairs: list[Pair]
    skipped: Counter[str]
    images: ImageStore
    examples: Mapping[str, str] = field(default_factory=dict)

    def image(self, key: str) -> Image.Image:
        """An image, RGB, read from disk.

        Raises:
            AlignError: it was changed or removed since the pairs were read.
        """
        return self.images.read(key)

    def latent(self, key: str) -> Tensor | None:
        """The latent that an image was decoded from, without a batch dimension; None if none is stored."""
        file = latent_file(self.images.folder, key)
        return load_latent(file) if file.is_file() else None

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of prompts, keys and probabilities, in order."""
        digest = sha256()
        for pair in self.pairs:
            digest.update(json.dumps(astuple(pair)).encode())
        return digest.hexdigest()


def read_pairs(
    path: str | Path,
    split: str | None = None,
    advance: Callable[[int], object] = lambda count: None,
    *,
    delimiter: str | None = None,
    allow_outside: bool = False,
) -> Pairs:
    """Read pairs from a table, or from a folder that contains one.

    Args:
        path: .csv, .tsv, .json, .jsonl, .parquet or .arrow, a folder of these, or a folder saved by ``datasets``. The
            columns are prompt, chosen, rejected and optionally probability (that the chosen image is better, by default
            1), or Pick-a-Pic's caption, jpg_0, jpg_1, label_0, label_1 and optionally has_label. Images are bytes or
            paths relative to the folder.
        split: of a folder with several splits.
        advance: receives the number of rows read since its last call.
        delimiter: between the fields of a .csv or .tsv file.
        allow_outside: read images outside of the table's folder too, also through symbolic links.

    Raises:
        AlignError: columns are missing, a number is infinite or nan, an image lies outside of the folder, or no row is
            usable; the message counts the reasons.
        TableError: a missing or damaged table, an unknown format, or an ambiguous split.
    """
    path = Path(path)
    pairs, skipped, examples = list[Pair](), Counter[str](), dict[str, str]()
    table_files = tables.files(path, split)
    images = ImageStore(path if path.is_dir() else path.parent, allow_outside=allow_outside)
    for file in table_files:
        for number, row in enumerate(_read_rows(file, delimiter)):
            try:
                pairs.append(_read_pair(row, images, file, number))
            except (_SkipRowError, ImageError) as error:
                skipped[str(error)] += 1
                if isinstance(error, ImageError):
                    examples.setdefault(str(error), error.example)
            advance(1)
    if not pairs:
        counts = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no rows"
        images_named = "".join(f"; the first {reason}: {example}" for reason, example in examples.items())
        raise AlignError(f"{path} holds no usable pair ({counts}); expected two images, one preferred{images_named}")
    return Pairs(pairs, skipped, images, examples)


def write_pairs(folder: Path, pairs: Sequence[Pair], images: Mapping[str, Path]) -> None:
    """Write a folder that :func:`read_pairs` reads. Its table is written last and atomically.

    Args:
        folder: receives ``pairs.jsonl``, and ``images/`` with the files that aren't in the folder yet.
        pairs: pairs with the keys of ``images``.
        images: key -> file of each image.

    Raises:
        AlignError: the folder holds other pairs, or can't be written.
    """
    names: dict[str, str] = {}
    for key, file in images.items():
        if file.is_relative_to(folder):
            names[key] = file.relative_to(folder).as_posix()
        else:
            content = read_whole(file, "the image", AlignError)
            names[key] = f"images/{sha256(content).hexdigest()}{file.suffix}"
            write_whole(folder / names[key], content, AlignError)
    named = (replace(pair, chosen=names[pair.chosen], rejected=names[pair.rejected]) for pair in pairs)
    content, table = "".join(json.dumps(asdict(pair)) + "\n" for pair in named).encode(), folder / "pairs.jsonl"
    if exists(table, "the preferences", AlignError) and read_whole(table, "the preferences", AlignError) != content:
        raise AlignError(
            f"{table} holds preferences of other prompts, samples or scores, and an anchor may have been trained on "
            "them; take another folder, or delete that file"
        )
    write_whole(table, content, AlignError)


def latent_file(folder: Path, key: str) -> Path:
    """The file that stores the latent of an image, under the name ``latent``."""
    return folder / "latents" / f"{key}.safetensors"


def _read_pair(row: dict[str, Any], images: ImageStore, file: Path, number: int) -> Pair:
    preference = _read_preference(row, f"{file}, row {number + 1}")
    chosen, rejected = (
        images.add(row[column], TableCell(file, number, column)) for column in (preference.chosen, preference.rejected)
    )
    if chosen == rejected:
        raise _SkipRowError("equal images")
    return Pair(preference.prompt, chosen, rejected, preference.probability)


class _SkipRowError(Exception):
    """Why a row is unusable."""


class _Preference(NamedTuple):
    """A row's prompt, the columns of its chosen and rejected images, and the probability that the chosen is better."""

    prompt: str
    chosen: str
    rejected: str
    probability: float


def _read_rows(file: Path, delimiter: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a table; raises AlignError if columns are missing."""
    names = tables.columns(file, delimiter)
    for columns, optional in (_COLUMNS, _PICK_A_PIC):
        if set(columns) <= set(names):
            return tables.rows(file, columns, optional, delimiter)
    raise AlignError(
        f"{file} has the columns {names}; expected {', '.join(_COLUMNS[0])} and perhaps probability, or Pick-a-Pic's "
        f"{', '.join(_PICK_A_PIC[0])} and perhaps has_label: rename them"
    )


def _read_preference(row: dict[str, Any], where: str) -> _Preference:
    """The preference in a row; raises _SkipRowError if the row is unusable, AlignError for a number that is none."""
    if "chosen" in row:
        probability = _parse_probability(row.get("probability", 1.0), where)
        preference = _Preference(row["prompt"], "chosen", "rejected", probability)
    else:
        preference = _read_pick_a_pic(row, where)
    if preference.probability == 0.5:
        raise _SkipRowError("tie")
    if not isinstance(preference.prompt, str) or not preference.prompt.strip():
        raise _SkipRowError("empty prompt")
    return preference


def _read_pick_a_pic(row: dict[str, Any], where: str) -> _Preference:
    if str(row.get("has_label", True)).strip().lower() in ("false", "0", "0.0", "none", ""):  # also in tables of text
        raise _SkipRowError("no label")
    first, second = _parse_probability(row["label_0"], where), _parse_probability(row["label_1"], where)
    if not math.isclose(first + second, 1):
        raise _SkipRowError("labels that don't add up to 1")
    if first >= second:
        return _Preference(row["caption"], "jpg_0", "jpg_1", first)
    return _Preference(row["caption"], "jpg_1", "jpg_0", second)


def _parse_probability(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise _SkipRowError("probability that isn't a number") from error
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise AlignError(f"{where}: a probability is {shorten(str(value), 40)}; expected a number from 0 to 1")
    if not 0 <= number <= 1:
        raise _SkipRowError("probability outside [0, 1]")
    return number
