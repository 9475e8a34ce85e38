"""Prompts from files and folders, as people and the hub keep them."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deradiff.errors import PlanError

COLUMNS = ("prompt", "prompts", "caption", "text")  # the last three as DrawBench, Pick-a-Pic and LAION name it
KINDS = ".txt, .csv, .tsv, .jsonl, .parquet, or a folder of .parquet or .arrow files"


def read_prompts(path: Path, column: str | None = None, split: str | None = None) -> list[str]:
    """Prompts from a file, a folder saved by ``datasets``, or a dataset as the hub lays it out; each prompt once.

    Args:
        path: .txt (one a line); .csv, .tsv, .jsonl or .parquet; or a folder of .parquet or .arrow files.
        column: which one holds prompts; by default the first of prompt, prompts, caption and text, in any case.
        split: which one of a folder that holds several.

    Raises:
        PlanError: nothing there, an unknown kind, a damaged file, a column or split that can't be told, or no prompt.
    """
    if path.is_dir():
        files = _files_of_split(path, split)
    elif path.is_file():
        files = [path]
    else:
        raise PlanError(f"no prompt file at {path}")
    if split is not None and not path.is_dir():
        raise PlanError(f"{path} is a file and has no splits; leave out --split, or give the folder")
    prompts: dict[str, None] = {}
    for file in files:
        with _told(file):
            for value in _values(file, column):
                if not isinstance(value, str | None):
                    raise PlanError(f"{file}: expected prompts that are text, got {value!r}; give another --column")
                if value and value.strip():
                    prompts[value.strip()] = None
    if not prompts:
        raise PlanError(f"{path} holds no prompt")
    return list(prompts)


def _values(file: Path, column: str | None) -> Iterator[Any]:
    """The values of the column of prompts, None where there is none, read bit by bit."""
    kind = file.suffix.lower()
    if kind == ".parquet":
        with pq.ParquetFile(file) as table:
            name = _column(table.schema_arrow.names, column, file)
            for batch in table.iter_batches(columns=[name]):
                yield from batch.column(name).to_pylist()
    elif kind == ".arrow":
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as table:
            name = _column(table.schema.names, column, file)
            for batch in table:
                yield from batch.column(name).to_pylist()
    else:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if kind == ".txt":
                yield from lines.read().splitlines()
            elif kind in (".csv", ".tsv"):
                rows = csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ",")
                name = _column(rows.fieldnames or [], column, file)
                yield from (row[name] for row in rows)
            elif kind == ".jsonl":
                records = (json.loads(line) for line in lines if line.strip())
                first = next(records, {})
                name = _column(first, column, file)
                yield from (record[name] for record in chain([first], records))
            else:
                raise PlanError(f"{file}: prompts are read from {KINDS}, not {kind or 'a bare name'!r}")


def _column(names: Iterable[str], asked: str | None, file: Path) -> str:
    names = list(names)
    if asked is not None:
        if asked not in names:
            raise PlanError(f"{file} has no column {asked!r}; choose --column from {names}")
        return asked
    found = [name for wanted in COLUMNS for name in names if name.strip().lower() == wanted]
    if not found:
        raise PlanError(f"{file}: expected a column named {', '.join(COLUMNS)}; choose --column from {names}")
    return found[0]


def _files_of_split(folder: Path, split: str | None) -> Sequence[Path]:
    """The files of one split in the order of their numbers; ``datasets`` keeps caches of its own beside them."""
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".parquet", ".arrow") and not file.name.startswith("cache-"):
            splits[_split_of(file.relative_to(folder))].append(file)
    if not splits:
        raise PlanError(f"no prompt file in {folder}: expected .parquet or .arrow files")
    if split is None and len(splits) == 1:
        (split,) = splits
    if split not in splits:
        raise PlanError(f"{folder}: choose --split from {list(splits)}, got {split}")
    files = splits[split]
    promised = re.search(r"-of-(\d+)", files[0].name)
    if promised and int(promised[1]) != len(files):
        raise PlanError(f"{folder} lacks files of {files[0].name}: {len(files)} are there; download or save it again")
    return files


def _split_of(file: Path) -> str:
    """``data/train-00000-of-00002-ab12.parquet``, ``train/data-00000-of-00001.arrow``, ``train/0.parquet``: train."""
    path = re.sub(r"(^|[-/])\d+(-of-\d+.*)?$", "", file.with_suffix("").as_posix())
    parts = [part for part in path.split("/") if part not in ("data", "")]
    return "/".join(parts) or "all"


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except PlanError:
        raise
    except UnicodeDecodeError as error:
        raise PlanError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (KeyError, TypeError) as error:
        raise PlanError(f"{file}: expected the same columns in every row ({error!r})") from error
    except (ValueError, csv.Error, pa.ArrowException, OSError) as error:
        raise PlanError(f"{file} is damaged, or not what its name says ({error})") from error
