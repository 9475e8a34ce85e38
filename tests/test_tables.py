"""One way to read a table: every row in its order, however it is stored, and each value found again by its row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deradiff import tables
from deradiff.errors import TableError

COUNT = 300  # more than is held at once


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("chunk", [7, COUNT])
def test_rows_come_in_order_and_cells_are_found_again(tmp_path: Path, kind: str, chunk: int) -> None:
    file, table = tmp_path / f"t.{kind}", pa.table({"a": range(COUNT), "b": [str(n) for n in range(COUNT)]})
    if kind == "parquet":
        pq.write_table(table, file, row_group_size=chunk)
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=chunk)
    assert tables.columns(file) == ["a", "b"]
    assert list(tables.rows(file, ["b"])) == [{"b": str(n)} for n in range(COUNT)]
    assert list(tables.rows(file, ["b"], ["a", "c"])) == [{"b": str(n), "a": n} for n in range(COUNT)]
    assert [tables.cell(file, n, "b") for n in range(0, COUNT, 13)] == [str(n) for n in range(0, COUNT, 13)]
    for row, column in ((COUNT, "a"), (0, "c")):
        with pytest.raises(TableError, match=file.name):
            tables.cell(file, row, column)


def test_an_error_of_the_reader_s_own_is_not_called_a_damaged_table(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        for _ in tables.rows(tmp_path / "t.jsonl", ["a"]):
            raise ValueError("mine")


def test_optional_columns_may_be_in_some_rows_only(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": 2, "b": 3}\n')
    assert list(tables.rows(tmp_path / "t.jsonl", ["a"], ["b"])) == [{"a": 1}, {"a": 2, "b": 3}]
    with pytest.raises(TableError, match=r"row 1: expected a, b; b is missing"):
        list(tables.rows(tmp_path / "t.jsonl", ["a", "b"]))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.csv", "prompt\na red square, left of a blue circle\n", r"line 2: expected 1 fields, prompt; put texts"),
        ("t.csv", "prompt,seed\na red square,1\na blue one\n", r"line 3: expected 2 fields"),
        ("t.csv", "prompt,prompt\na,b\n", "names a column twice"),
        ("t.csv", 'prompt\n"unclosed\nb\n', "damaged"),
        ("t.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2, is damaged .*; mend that line"),
        ("t.jsonl", '[{"prompt": "a"}]\n', "line 1: expected a text, or an object"),
        ("t.jsonl", '{"prompt": "a"}\n\n5\n', "line 3: expected a text, or an object"),
    ],
)
def test_text_that_would_be_read_wrongly_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=told):
        list(tables.rows(tmp_path / name, ["prompt"]))


def test_quoted_commas_and_line_breaks_are_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('prompt\n"a red square, left of\na ""blue"" circle"\n')
    assert list(tables.rows(tmp_path / "t.csv", ["prompt"])) == [{"prompt": 'a red square, left of\na "blue" circle'}]


def test_a_disk_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_FOLDERS", 3)
    for name in "abc":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "train.csv").write_text("prompt\none\n")
    assert tables.files(tmp_path) == [tmp_path / "a" / "train.csv"]
    (tmp_path / "d").mkdir()
    with pytest.raises(TableError, match="more than 3 folders; give the folder of the tables"):
        tables.files(tmp_path)
