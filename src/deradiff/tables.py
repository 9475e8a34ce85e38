"""Tables as people, the hub and ``datasets`` keep them: .csv, .tsv, .json, .jsonl, .parquet, .arrow, folders of these.

Whatever a file holds, reading it ends with rows or a `TableError`.
"""

import csv
import errno
import json
import logging
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from deradiff.errors import TableError, abbreviate
from deradiff.reading import parse_json, read_text

logger = logging.getLogger("deradiff")

KINDS = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")  # and, where they are given themselves:
ALONE = (".json", ".txt")  # a folder may hold such files that are no tables
# what runs and trainings write into their folders, which may lie beside the data
_OUTPUTS = ("run.json", "checkpoint.pt", "pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_MOST_FOLDERS = 10_000  # below one of tables; more are a disk, or a home
_ROWS = 128  # held at once: rows may hold pictures
_HEADER = re.compile(r"\w+(;\w+)+")  # names with semicolons between them, as spreadsheets write in some countries
LINE = "text"  # the column of a table that has one without a name

Read = Callable[[list[str]], Iterable[dict[str, Any]]]


def files(path: Path, split: str | None = None) -> list[Path]:
    """The files of a table, in order: a file itself, or those of one split of a folder.

    Args:
        path: a file, a folder saved by ``datasets``, or a dataset as the hub lays it out.
        split: which one of a folder that holds several.

    Raises:
        TableError: nothing there that can be read, several splits, or files that are missing or of several kinds.
    """
    if _is_folder(path):
        with _table_errors(path):
            return _files_of_split(path, split)
    if split is not None:
        raise TableError(f"{path} is a file and has no splits; leave the split out, or give the folder")
    return [path]


def columns(file: Path, delimiter: str | None = None, *, header: bool = True) -> list[str]:
    """The names of a table's columns: of a .jsonl or .json file the keys of its first row.

    A .txt file, and a list of texts, have one column, ``text``; a .csv file without a header has 1, 2, ...

    Args:
        file: the table.
        delimiter: between the fields of a .csv or .tsv file; None is a comma or a tabulator, or a semicolon where the
            header shows it, which is logged.
        header: whether the first line of a .csv or .tsv file names its columns.

    Raises:
        TableError: an unknown kind, or a damaged file.
    """
    with _table_errors(file), _opened(file, delimiter, header) as (names, _):
        return names


def rows(
    file: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    delimiter: str | None = None,
    *,
    header: bool = True,
) -> Iterator[dict[str, Any]]:
    """The rows of a table, read bit by bit; the values of .csv and .tsv are text.

    Args:
        file: the table.
        columns: what each row must have.
        optional: what a row may have.
        delimiter: as of :func:`columns`.
        header: likewise.

    Raises:
        TableError: an unknown kind, a damaged file, a row without these columns, or text that is none.
    """
    with _table_errors(file), _opened(file, delimiter, header) as (names, read):
        for number, row in enumerate(read([name for name in names if name in {*columns, *optional}]), start=1):
            if lacking := [name for name in columns if name not in row]:
                raise TableError(
                    f"{file}, row {number}: expected {', '.join(columns)}; {', '.join(lacking)} is missing"
                )
            chosen = {name: row[name] for name in columns} | {name: row[name] for name in optional if name in row}
            _check_texts(chosen, f"{file}, row {number}")
            yield chosen


def cell(file: Path, row: int, column: str) -> Any:
    """One value of a .parquet or .arrow file; its batch or row group is read.

    Raises:
        TableError: a damaged file, or one that is no longer what it was.
    """
    with _table_errors(file):
        if file.suffix.lower() == ".arrow":
            with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                for batch in stream:
                    if row < batch.num_rows:
                        return next(_dicts([batch.select([column]).slice(row, 1)]))[column]
                    row -= batch.num_rows
        else:
            with pq.ParquetFile(file) as table:
                for group in range(table.num_row_groups):
                    count = table.metadata.row_group(group).num_rows
                    if row < count:
                        return table.read_row_group(group, [column]).column(column)[row].as_py()
                    row -= count
        raise IndexError(f"{row} rows too few")


@contextmanager
def _opened(file: Path, delimiter: str | None, header: bool) -> Generator[tuple[list[str], Read]]:
    """The names of a table's columns, and what reads rows that hold at least some of them."""
    kind = file.suffix.lower()
    if _is_folder(file):
        raise TableError(f"{file} is a folder; expected a file")
    if kind not in (".csv", ".tsv") and (delimiter is not None or not header):
        raise TableError(f"{file}: only .csv and .tsv files have a delimiter, or no header; leave that out")
    if kind == ".parquet":
        with pq.ParquetFile(file) as table:
            yield table.schema_arrow.names, lambda names: _dicts(table.iter_batches(_ROWS, columns=names))
    elif kind == ".arrow":  # no memory map: the process would die where the file is cut short meanwhile
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
            yield stream.schema.names, lambda names: _dicts(batch.select(names) for batch in stream)
    elif kind in (".csv", ".tsv"):
        yield from _open_fields(file, delimiter or ("\t" if kind == ".tsv" else _sniff(file)), header)
    elif kind == ".jsonl":
        with file.open(encoding="utf-8-sig") as lines:
            yield _with_first(_objects(lines, file))
    elif kind == ".json":
        yield _with_first(iter(_read_json(file)))
    elif kind == ".txt":
        text = read_text(file, "the table", TableError)
        yield [LINE], lambda _: ({LINE: line} for line in text.splitlines())
    else:
        kinds = ", ".join((*KINDS, *ALONE))
        raise TableError(f"{file}: a table is read from {kinds}, not {kind or 'a bare name'!r}")


def _open_fields(file: Path, delimiter: str, header: bool) -> Iterator[tuple[list[str], Read]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        first = next(records, [])
        names = first if header else [str(number) for number in range(1, len(first) + 1)]
        yield names, lambda _: _named(records if header else chain([first], records), records, names, file)


def _named(fields: Iterable[list[str]], reader: Any, names: list[str], file: Path) -> Iterator[dict[str, Any]]:
    """Rows of as many fields as the header: a comma in a prompt that isn't quoted would cut it short."""
    if len(set(names)) < len(names):
        raise TableError(f"{file} names a column twice: {names}; rename one")
    for row in fields:
        if row and len(row) != len(names):  # an empty line is no row
            raise TableError(
                f"{file}, line {reader.line_num}: expected {len(names)} fields, {', '.join(names)}; "
                'put texts with a comma or a line break in "quotes"'
            )
        if row:
            yield dict(zip(names, row, strict=True))


def _sniff(file: Path) -> str:
    """A comma; or a semicolon, where the first line is of names with semicolons between them, which is logged."""
    with file.open(encoding="utf-8-sig") as lines:
        if not _HEADER.fullmatch(lines.readline(1 << 16).strip().replace('"', "")):
            return ","
    logger.warning("%s has semicolons between its fields, going by its first line: read so", file)
    return ";"


def _with_first(objects: Iterator[dict[str, Any]]) -> tuple[list[str], Read]:
    first = next(objects, {})
    return list(first), lambda _: chain([first] if first else [], objects)


def _objects(lines: Iterable[str], file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            parsed = parse_json(line, f"{file}, line {number},", TableError, "mend that line")
            yield _as_row(parsed, f"{file}, line {number}")


def _read_json(file: Path) -> list[dict[str, Any]]:
    """The rows of a .json file: a list of objects or texts, or an object of lists as long as each other."""
    content = parse_json(read_text(file, "the table", TableError), str(file), TableError, "mend it")
    if isinstance(content, list):
        return [_as_row(row, f"{file}, row {number}") for number, row in enumerate(content, start=1)]
    columns_read = content.values() if isinstance(content, dict) else ()
    if not columns_read or not all(isinstance(values, list) for values in columns_read):
        raise TableError(
            f'{file}: expected a list like ["...", ...] or [{{"prompt": "..."}}, ...], or {{"prompt": [...]}}'
        )
    if len({len(values) for values in columns_read}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in content.items())
        raise TableError(f"{file}: expected columns of one length, got {lengths}")
    return [dict(zip(content, values, strict=True)) for values in zip(*columns_read, strict=True)]


def _as_row(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {LINE: value}
    if not isinstance(value, dict):
        shown = shorten(json.dumps(value), 60)
        raise TableError(f'{what}: expected a text, or an object like {{"prompt": "..."}}, got {shown}')
    return value


class _Batch(Protocol):
    """What is used of pyarrow's RecordBatch, which comes without types."""

    num_rows: int

    def validate(self, *, full: bool) -> None: ...
    def slice(self, offset: int, length: int) -> "_Batch": ...
    def to_pylist(self) -> list[dict[str, Any]]: ...


def _dicts(batches: Iterable[_Batch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        batch.validate(full=True)  # else a damaged file can end the process
        for start in range(0, batch.num_rows, _ROWS):
            yield from batch.slice(start, _ROWS).to_pylist()


def _check_texts(row: dict[str, Any], what: str) -> None:
    """Check for what can't be written as UTF-8, or shows that a file is of another encoding."""
    for name, value in row.items():
        if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
            wrong = "a null character" if "\0" in value else "half of a surrogate pair"
            raise TableError(f"{what}: {name} holds {wrong}, which is no text; save the file as UTF-8")


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; else it is a regular file.

    Raises:
        TableError: it is neither, or can't be looked at.
    """
    shown = abbreviate(path, 300)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        kinds = ", ".join((*KINDS, *ALONE[:-1]))
        raise TableError(
            f"no file at {shown}; expected a table ({kinds} or {ALONE[-1]}), or a folder of tables"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        hint = "; give a shorter path" if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG else ""
        raise TableError(f"{shown} can't be read ({reason}){hint}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise TableError(f"{shown} is a pipe or a device; expected a file or a folder")
    return stat.S_ISDIR(mode)


def _is_output(file: Path, folder: Path) -> bool:
    """Whether a file below ``folder`` lies in a folder that a run or a training has written there."""
    parents = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
    begun = any((parent / "log.jsonl").is_file() and (parent / "cache").is_dir() for parent in parents)
    return begun or any((parent / name).exists() for parent in parents for name in _OUTPUTS)


def _files_of_split(folder: Path, split: str | None) -> list[Path]:
    """The files of one split in the order of their numbers; ``datasets`` keeps caches of its own beside them."""
    list(folder.iterdir())  # raises where the folder can't be listed, which a walk passes over
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(_tables_below(folder)):
        if not file.name.startswith("cache-") and not _is_output(file, folder):
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


def _tables_below(folder: Path) -> Iterator[Path]:
    for count, (parent, _, names) in enumerate(os.walk(folder)):
        if count > _MOST_FOLDERS:
            raise TableError(f"{folder} holds more than {_MOST_FOLDERS:,} folders; give the folder of the tables")
        yield from (Path(parent, name) for name in names if Path(name).suffix in KINDS)


def _split_of(file: Path) -> str:
    """``data/train-00000-of-00002-ab12.parquet``, ``train/data-00000-of-00001.arrow``, ``train/0.parquet``: train."""
    path = re.sub(r"(^|[-/])\d+(-of-\d+.*)?$", "", file.with_suffix("").as_posix())
    parts = [part for part in path.split("/") if part not in ("data", "")]
    return "/".join(parts) or "all"


@contextmanager
def _table_errors(file: Path) -> Generator[None]:
    try:
        yield
    except TableError:
        raise
    except UnicodeDecodeError as error:
        kind = "UTF-16" if error.start == 0 and error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "no UTF-8"
        raise TableError(f"{file} is {kind} text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (KeyError, TypeError) as error:
        raise TableError(f"{file}: expected the same columns in every row ({error!r})") from error
    except OSError as error:
        if error.strerror and error.errno:
            raise TableError(f"{file} can't be read ({error.strerror})") from error
        raise TableError(f"{file} is damaged, or not what its name says ({error})") from error
    except (ValueError, IndexError, OverflowError, MemoryError, csv.Error, pa.ArrowException) as error:
        raise TableError(f"{file} is damaged, or not what its name says ({error})") from error
