"""Prompts from files and folders, as people and the hub keep them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deradiff import tables
from deradiff.errors import ConfigError

COLUMNS = ("prompt", "prompts", "caption", "text")  # the last three as DrawBench, Pick-a-Pic and LAION name it


def read_prompts(path: Path, column: str | None = None, split: str | None = None) -> list[str]:
    """Prompts from a file, a folder saved by ``datasets``, or a dataset as the hub lays it out; each prompt once.

    Args:
        path: .txt (one a line); .csv, .tsv, .jsonl, .parquet or .arrow; or a folder of these but .txt.
        column: which one holds prompts; by default the first of prompt, prompts, caption and text, in any case.
        split: which one of a folder that holds several.

    Raises:
        ConfigError: no column of prompts, or several, or no prompt.
        TableError: nothing there, an unknown kind, a damaged file, or several splits.
    """
    prompts: dict[str, None] = {}
    for file in tables.files(path, split):
        for value in _values(file, column):
            if not isinstance(value, str | None):
                raise ConfigError(f"{file}: expected prompts that are text, got {value!r}; give another --column")
            if value and value.strip():
                prompts[value.strip()] = None
    if not prompts:
        raise ConfigError(f"{path} holds no prompt")
    return list(prompts)


def _values(file: Path, column: str | None) -> Iterator[Any]:
    """The values of the column of prompts, None where there is none."""
    name = _column(tables.columns(file), column, file)
    return (row[name] for row in tables.rows(file, [name]))


def _column(names: list[str], asked: str | None, file: Path) -> str:
    if asked is not None:
        if asked not in names:
            raise ConfigError(f"{file} has no column {asked!r}; choose --column from {names}")
        return asked
    matching = [name for column in COLUMNS for name in names if name.strip().lower() == column]
    if not matching:
        raise ConfigError(f"{file}: expected a column named {', '.join(COLUMNS)}; choose --column from {names}")
    return matching[0]
