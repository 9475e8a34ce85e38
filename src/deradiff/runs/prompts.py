"""Prompts from files and folders, as people and the hub keep them."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deradiff import tables
from deradiff.errors import ConfigError

logger = logging.getLogger("deradiff")

COLUMNS = ("prompt", "prompts", "caption", "text")  # the last three as DrawBench, Pick-a-Pic and LAION name it


def read_prompts(
    path: Path, column: str | None = None, split: str | None = None, delimiter: str | None = None
) -> list[str]:
    """Prompts from a file, a folder saved by ``datasets``, or a dataset as the hub lays it out; each prompt once.

    How many empty and repeated ones were left out is logged.

    Args:
        path: .txt (one a line); .csv, .tsv, .json, .jsonl, .parquet or .arrow; or a folder of the last three or of .csv
            or .tsv files.
        column: which one holds prompts; by default the first of prompt, prompts, caption and text, in any case. Of a
            .csv or .tsv file without a header, the number of the column: "1" is the first.
        split: which one of a folder that holds several.
        delimiter: between the fields of a .csv or .tsv file.

    Raises:
        ConfigError: no column of prompts, or several, or no prompt.
        TableError: nothing there, an unknown kind, a damaged file, or several splits.
    """
    prompts: dict[str, None] = {}
    dropped = Counter[str]()
    for file in tables.files(path, split):
        for value in _values(file, column, delimiter):
            if not isinstance(value, str | None):
                raise ConfigError(f"{file}: expected prompts that are text, got {value!r}; give another --column")
            prompt = (value or "").strip()
            if not prompt or prompt in prompts:
                dropped["repeated" if prompt else "empty"] += 1
            else:
                prompts[prompt] = None
    if not prompts:
        raise ConfigError(f"{path} holds no prompt")
    if dropped:
        counts = " and ".join(f"{count:,} {kind}" for kind, count in sorted(dropped.items()))
        logger.warning("%s: left out %s of %s prompts", path, counts, f"{len(prompts) + dropped.total():,}")
    return list(prompts)


def _values(file: Path, column: str | None, delimiter: str | None) -> Iterator[Any]:
    """The values of the column of prompts, None where there is none."""
    names = tables.columns(file, delimiter)
    header = column is None or not column.isdecimal() or column in names
    if not header:
        names = tables.columns(file, delimiter, header=False)
    name = _column(names, column, file)
    return (row[name] for row in tables.rows(file, [name], delimiter=delimiter, header=header))


def _column(names: list[str], asked: str | None, file: Path) -> str:
    if asked is not None:
        if asked not in names:
            raise ConfigError(f"{file} has no column {asked!r}; choose --column from {names}")
        return asked
    matching = [name for column in COLUMNS for name in names if name.strip().lower() == column]
    if not matching:
        fields = file.suffix.lower() in (".csv", ".tsv")
        hint = " (--column 1, if the file has no header; --delimiter, if not a comma is between its fields)" * fields
        raise ConfigError(f"{file}: expected a column named {', '.join(COLUMNS)}; choose --column from {names}{hint}")
    return matching[0]
