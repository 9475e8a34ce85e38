"""Files that are damaged or no files at all: reading ends with rows or with a TableError, never otherwise."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deradiff import tables
from deradiff.errors import TableError

READ = """
import random, sys
from pathlib import Path
from deradiff import tables
from deradiff.errors import TableError

whole, ends = Path(sys.argv[1]).read_bytes(), {"rows": 0, "error": 0}
torn, generator = Path(sys.argv[1]).with_stem("torn"), random.Random(0)
for turn in range(120):
    content = bytearray(whole[: generator.randrange(len(whole))] if turn % 3 == 0 else whole)
    for _ in range(4 if turn % 3 else 0):
        content[generator.randrange(len(content))] = generator.randrange(256)
    torn.write_bytes(content)
    try:
        for name in tables.columns(torn):
            list(tables.rows(torn, [name]))
            tables.cell(torn, 5, name)
        ends["rows"] += 1
    except TableError:
        ends["error"] += 1
print(ends["rows"], ends["error"])
"""


def write_arrow(table: pa.Table, file: Path) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=16)


@pytest.mark.parametrize(("kind", "write"), [("arrow", write_arrow), ("parquet", pq.write_table)])
def test_a_damaged_file_never_ends_the_process(tmp_path: Path, kind: str, write: Callable[..., None]) -> None:
    texts = pa.array([f"prompt {n}" for n in range(40)])
    dictionary = pa.array(["a", "b"] * 20).dictionary_encode()
    images = pa.array([{"bytes": bytes(5), "path": None}] * 40)
    write(pa.table({"prompt": texts, "kind": dictionary, "image": images}), tmp_path / f"t.{kind}")
    command = [sys.executable, "-c", READ, str(tmp_path / f"t.{kind}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows, errors = map(int, done.stdout.split())
    assert rows + errors == 120
    assert errors > 20


def test_texts_with_broken_offsets_are_an_error(tmp_path: Path) -> None:
    """Unchecked, they read memory of somebody else."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2**30, 5)))
    broken = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"hello"))
    write_arrow(pa.table({"prompt": broken}), tmp_path / "t.arrow")
    for read in (lambda file: list(tables.rows(file, ["prompt"])), lambda file: tables.cell(file, 1, "prompt")):
        with pytest.raises(TableError, match="damaged"):
            read(tmp_path / "t.arrow")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "prompt\nb\n".encode("utf-16"), "is UTF-16 text .*save it as UTF-8"),
        ("t.csv", "prompt\nb\n".encode("utf-16-le"), "prompt"),
        ("t.csv", b"prompt\na\0b\n", "null character|damaged"),
        ("t.txt", b"a\0b\n", "row 1: text holds a null character"),
        ("t.jsonl", b'{"prompt": "\\ud800"}\n', "line 1, is damaged .*surrogates not allowed"),
        ("t.jsonl", b'{"prompt": ' + b"[" * 10**5 + b"]" * 10**5 + b"}\n", "line 1, is damaged"),
        ("t.json", b"[" * 10**5, "is damaged"),
        ("t.json", b'{"prompt": ["a"], "id": [1, 2]}', "columns of one length, got prompt 1, id 2"),
        ("t.json", b'{"prompt": "a"}', r'expected a list like \["..."'),
        ("t.json", b"{}", "expected a list like"),
        ("t.json", b"[1]", "row 1: expected a text, or an object"),
        ("t.jsonl", b'{"prompt": 1' + b"0" * 5000 + b"}\n", "is damaged"),
    ],
)
def test_text_that_is_none_is_an_error(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=words) as caught:
        list(tables.rows(tmp_path / name, ["text" if name == "t.txt" else "prompt"]))
    assert len(str(caught.value)) < 1000


def paths(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "folder.csv").mkdir()
    os.mkfifo(folder / "pipe.csv")
    return {
        "missing": (folder / "missing.csv", "no file at"),
        "overlong": (folder / ("x" * 5000), "File name too long.*give a shorter path"),
        "a link to itself": (folder / "loop.csv", "symbolic links"),
        "a folder": (folder / "folder.csv", "no table in"),
        "a pipe": (folder / "pipe.csv", "is a pipe or a device"),
        "a device": (Path("/dev/zero"), "is a pipe or a device"),
        "below a file": (Path(__file__) / "t.csv", "Not a directory"),
        "a null character": (folder / "a\0b.csv", "null"),
    }


def test_paths_that_are_no_tables_are_an_error(tmp_path: Path) -> None:
    for kind, (path, words) in paths(tmp_path).items():
        with pytest.raises(TableError, match=words) as caught:
            tables.files(path)
        assert len(str(caught.value).splitlines()) == 1, kind
        assert len(str(caught.value)) < 600, kind


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt\na\n")
    (tmp_path / "t.csv").chmod(0)
    with pytest.raises(TableError, match="Permission denied"):
        tables.columns(tmp_path / "t.csv")


def test_a_file_cut_short_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    generator = random.Random(0)
    texts = [generator.randbytes(20_000).hex() for _ in range(64)]
    write_arrow(pa.table({"prompt": texts}), tmp_path / "t.arrow")
    reading = tables.rows(tmp_path / "t.arrow", ["prompt"])
    next(reading)
    os.truncate(tmp_path / "t.arrow", 1 << 20)
    with pytest.raises(TableError, match="damaged"):
        list(reading)
