"""What a row of a table says is preferred, in the layouts that are known."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deradiff import tables
from deradiff.errors import AlignError

_PLAIN = ("prompt", "chosen", "rejected"), ("probability",)
_PICKED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1"), ("has_label",)  # Kirstain et al. 2023, arXiv 2305.01569


class SkipError(Exception):
    """Why nothing can be learnt from a row."""


class Preference(NamedTuple):
    """Which of a row's columns holds the image that is preferred for a prompt, and with what probability it is."""

    prompt: str
    chosen: str
    rejected: str
    probability: float


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table of preferences.

    Raises:
        AlignError: columns are missing.
        TableError: an unknown kind, or a damaged file.
    """
    found = tables.columns(file)
    for columns, optional in (_PLAIN, _PICKED):
        if set(columns) <= set(found):
            return tables.rows(file, columns, optional)
    raise AlignError(
        f"{file} has the columns {found}; expected {', '.join(_PLAIN[0])} and perhaps probability, or Pick-a-Pic's "
        f"{', '.join(_PICKED[0])} and perhaps has_label: rename them"
    )


def preference(row: dict[str, Any]) -> Preference:
    """What a row says.

    Raises:
        SkipError: nothing that could be learnt from.
    """
    if "chosen" in row:
        said = Preference(row["prompt"], "chosen", "rejected", _probability(row.get("probability", 1.0)))
    else:
        said = _picked(row)
    if said.probability == 0.5:
        raise SkipError("tie")
    if not isinstance(said.prompt, str) or not said.prompt.strip():
        raise SkipError("empty prompt")
    return said


def _picked(row: dict[str, Any]) -> Preference:
    if str(row.get("has_label", True)).strip().lower() in ("false", "0", "0.0", "none", ""):  # tables of text too
        raise SkipError("no label")
    first, second = _probability(row["label_0"]), _probability(row["label_1"])
    if not math.isclose(first + second, 1):
        raise SkipError("labels that don't add up to 1")
    if first >= second:
        return Preference(row["caption"], "jpg_0", "jpg_1", first)
    return Preference(row["caption"], "jpg_1", "jpg_0", second)


def _probability(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise SkipError("probability that is no number") from error
    if not 0 <= number <= 1:
        raise SkipError("probability outside [0, 1]")
    return number
