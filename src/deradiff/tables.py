"""Tables as people, the hub and ``datasets`` keep them: .csv, .tsv, .jsonl, .parquet, .arrow, and folders of these."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deradiff.errors import TableError
from deradiff.io import parse_object

KINDS = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")  # and .txt, where it is given itself
# what runs and trainings write into their folders, which may lie beside the data
_OUTPUTS = ("run.json", "checkpoint.pt", "pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_ROWS = 128  # held at once: rows may hold pictures

Read = Callable[[list[str]], Iterable[dict[str, Any]]]


def files(path: Path, split: str | None = None) -> list[Path]:
    """The files of a table, in order: a file itself, or those of one split of a folder.

    Args:
        path: a file, a folder saved by ``datasets``, or a dataset as the hub lays it out.
        split: which one of a folder that holds several.

    Raises:
        TableError: nothing there, several splits, or files that are missing or of several kinds.
    """
    if os.path.isdir(path):
        return _files_of_split(path, split)
    if not os.path.isfile(path):
        raise TableError(f"no file at {path}; expected a table ({', '.join(KINDS)} or .txt), or a folder of tables")
    if split is not None:
        raise TableError(f"{path} is a file and has no splits; leave the split out, or give the folder")
    return [path]


def columns(file: Path) -> list[str]:
    """The names of a table's columns: of a .jsonl file the keys of its first row, of a .txt file ``text``, the line.

    Raises:
        TableError: an unknown kind, or a damaged file.
    """
    with _told(file), _opened(file) as (names, _):
        return names


def rows(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a table, read bit by bit; the values of .csv and .tsv are text.

    Args:
        file: the table.
        columns: what each row must have.
        optional: what a row may have.

    Raises:
        TableError: an unknown kind, a damaged file, or a row without these columns.
    """
    with _told(file), _opened(file) as (names, read):
        for number, row in enumerate(read([name for name in names if name in {*columns, *optional}]), start=1):
            if lacking := [name for name in columns if name not in row]:
                raise TableError(
                    f"{file}, row {number}: expected {', '.join(columns)}; {', '.join(lacking)} is missing"
                )
            yield {name: row[name] for name in columns} | {name: row[name] for name in optional if name in row}


def cell(file: Path, row: int, column: str) -> Any:
    """One value of a .parquet or .arrow file; of a .parquet file its row group is read.

    Raises:
        TableError: a damaged file, or one that is no longer what it was.
    """
    with _told(file):
        if file.suffix.lower() == ".arrow":
            with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                values = stream.read_all().column(column)
                values.validate(full=True)
                return values[row].as_py()
        with pq.ParquetFile(file) as table:
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                if row < count:
                    return table.read_row_group(group, [column]).column(column)[row].as_py()
                row -= count
        raise IndexError(f"{row} rows too few")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[list[str], Read]]:
    """The names of a table's columns, and what reads rows that hold at least some of them."""
    kind = file.suffix.lower()
    if kind == ".parquet":
        with pq.ParquetFile(file) as table:
            yield table.schema_arrow.names, lambda names: _dicts(table.iter_batches(_ROWS, columns=names))
    elif kind == ".arrow":
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            yield stream.schema.names, lambda names: _dicts(batch.select(names) for batch in stream)
    elif kind in (".csv", ".tsv"):
        with file.open(encoding="utf-8-sig", newline="") as lines:
            records = csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ",", strict=True)
            yield list(records.fieldnames or []), lambda _: _checked(records, file)
    elif kind == ".jsonl":
        with file.open(encoding="utf-8-sig") as lines:
            objects = _objects(lines, file)
            first = next(objects, {})
            yield list(first), lambda _: chain([first], objects)
    elif kind == ".txt":
        yield ["text"], lambda _: ({"text": line} for line in file.read_text(encoding="utf-8-sig").splitlines())
    else:
        raise TableError(f"{file}: a table is read from {', '.join(KINDS)} or .txt, not {kind or 'a bare name'!r}")


def _checked(records: "csv.DictReader[str]", file: Path) -> Iterator[dict[str, Any]]:
    """Rows of as many fields as the header: a comma in a prompt that isn't quoted would cut it short."""
    names = list(records.fieldnames or [])
    if len(set(names)) < len(names):
        raise TableError(f"{file} names a column twice: {names}; rename one")
    for row in records:
        if None in row or None in row.values():
            raise TableError(
                f"{file}, line {records.line_num}: expected {len(names)} fields, {', '.join(names)}; "
                'put texts with a comma or a line break in "quotes"'
            )
        yield row


def _objects(lines: Iterable[str], file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        yield parse_object(line, f"{file}, line {number},", TableError, "mend that line")


def _dicts(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        batch.validate(full=True)  # damaged offsets would be read as they are
        for start in range(0, batch.num_rows, _ROWS):
            yield from batch.slice(start, _ROWS).to_pylist()


def _is_output(file: Path, folder: Path) -> bool:
    """Whether a file below ``folder`` lies in a folder that a run or a training has written there."""
    parents = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
    begun = any((parent / "log.jsonl").is_file() and (parent / "cache").is_dir() for parent in parents)
    return begun or any((parent / name).exists() for parent in parents for name in _OUTPUTS)


def _files_of_split(folder: Path, split: str | None) -> list[Path]:
    """The files of one split in the order of their numbers; ``datasets`` keeps caches of its own beside them."""
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix in KINDS and not file.name.startswith("cache-") and not _is_output(file, folder):
            splits[_split_of(file.relative_to(folder))].append(file)
    if not splits:
        raise TableError(f"no table in {folder}: expected {', '.join(KINDS)} files")
    if split is None and len(splits) == 1:
        (split,) = splits
    if split not in splits:
        raise TableError(f"{folder}: choose a split from {list(splits)}, got {split}")
    files = splits[split]
    promised = re.search(r"-of-(\d+)", files[0].name)
    if promised and int(promised[1]) != len(files):
        raise TableError(f"{folder} lacks files of {files[0].name}: {len(files)} are there; download or save it again")
    if len({file.suffix for file in files}) > 1:
        raise TableError(f"{folder} holds {', '.join(file.name for file in files)}; give the one to be read")
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
    except TableError:
        raise
    except UnicodeDecodeError as error:
        raise TableError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except (KeyError, TypeError) as error:
        raise TableError(f"{file}: expected the same columns in every row ({error!r})") from error
    except (ValueError, IndexError, csv.Error, pa.ArrowException, OSError) as error:
        raise TableError(f"{file} is damaged, or not what its name says ({error})") from error
