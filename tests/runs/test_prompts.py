"""Prompts from real files: written by hand, by pyarrow, and by ``datasets`` itself (``saved_by_datasets``)."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deradiff.errors import ConfigError, DeradiffError, TableError
from deradiff.runs.prompts import read_prompts

SAVED = Path(__file__).parent / "saved_by_datasets"
TWO = ["a red one", "a blue one"]


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "a red one\n\n a blue one \na red one\n"),
        ("p.csv", "id,prompt\n1,a red one\n2,a blue one\n3,\n"),
        ("p.CSV", "\ufeffPrompts,Category\r\na red one,Colors\r\na blue one,Colors\r\n"),
        ("p.tsv", "Prompt\tCategory\na red one\tx\na blue one\tx\n"),
        ("p.jsonl", '{"prompt": "a red one"}\n\n{"prompt": "a blue one"}\n{"prompt": null}\n'),
        ("p.jsonl", '{"TEXT": "x", "caption": "a red one"}\n{"caption": "a blue one"}\n'),
        ("p.jsonl", '"a red one"\n"a blue one"\n""\n'),
        ("p.json", '["a red one", "a blue one", " "]'),
        ("p.json", '[{"id": 1, "prompt": "a red one"}, {"prompt": "a blue one"}]'),
        ("p.json", '\ufeff{"id": [1, 2], "prompt": ["a red one", "a blue one"]}'),
    ],
)
def test_text_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(tmp_path / name) == TWO


def test_parquet_of_any_text_type(tmp_path: Path) -> None:
    texts = ["a red one", None, "a blue one", " ", "a red one"]
    types = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    for place, kind in enumerate(types):
        file = parquet(tmp_path / f"{place}.parquet", other=range(5), Caption=pa.array(texts).cast(kind))
        assert read_prompts(file) == TWO


def test_a_column_of_another_name_is_asked_for(tmp_path: Path) -> None:
    file = parquet(tmp_path / "p.parquet", instruction=TWO, n=[1, 2])
    with pytest.raises(ConfigError, match=r"choose --column from \['instruction', 'n'\]"):
        read_prompts(file)
    assert read_prompts(file, column="instruction") == TWO
    with pytest.raises(ConfigError, match="expected prompts that are text, got 1"):
        read_prompts(file, column="n")
    with pytest.raises(ConfigError, match="no column 'm'"):
        read_prompts(file, column="m")


def test_folders_saved_by_datasets() -> None:
    assert (SAVED / "saved" / "cache-a5ac693a4b8e6a1e.arrow").is_file()  # not prompts of the data set
    assert read_prompts(SAVED / "saved") == TWO
    assert read_prompts(SAVED / "dict", split="train") == TWO
    assert read_prompts(SAVED / "dict" / "test") == ["a green one"]
    for split in (None, "other"):
        with pytest.raises(TableError, match=r"choose a split from \['test', 'train'\]"):
            read_prompts(SAVED / "dict", split=split)


@pytest.mark.parametrize(
    "names",
    [
        ["data/train-00000-of-00002-0a1b2c.parquet", "data/train-00001-of-00002-3d4e5f.parquet"],
        ["default/train/0000.parquet", "default/train/0001.parquet"],
        ["part-0.parquet", "part-1.parquet"],
    ],
)
def test_folders_as_the_hub_lays_them_out(tmp_path: Path, names: list[str]) -> None:
    for name, text in zip(names, TWO, strict=True):
        parquet(tmp_path / name, prompt=[text])
    assert read_prompts(tmp_path) == TWO


def test_splits_of_the_hub_are_distinguished(tmp_path: Path) -> None:
    for split in ("test", "test_unique", "train"):
        parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", caption=[f"of {split}"])
    with pytest.raises(TableError, match=r"\['test', 'test_unique', 'train'\]"):
        read_prompts(tmp_path)
    assert read_prompts(tmp_path, split="test_unique") == ["of test_unique"]


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "saved", tmp_path / "saved")
    (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(TableError, match="lacks files"):
        read_prompts(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("p.txt", b"\n \n", "no prompt"),
        ("p.txt", b"caf\xe9\n", "UTF-8"),
        ("p.csv", b"", "expected a column named"),
        ("p.csv", b"name\nx\n", "expected a column named"),
        ("p.jsonl", b'{"prompt": "x"}\n{nonsense\n', "line 2, is damaged"),
        ("p.jsonl", b'{"prompt": "x"}\n{"caption": "y"}\n', "row 2: expected prompt; prompt is missing"),
        ("p.jsonl", b'{"prompt": "x"}\n"y"\n', "row 2: expected prompt; prompt is missing"),
        ("p.jsonl", b"5\n", "line 1: expected a text, or an object"),
        ("p.parquet", b"PAR1nonsense", "damaged"),
        ("p.arrow", b"nonsense", "damaged"),
        ("p.docx", b"x", "is read from"),
        ("p.csv", b"a red one\na blue one\n", "--column 1, if the file has no header; --delimiter, if"),
        ("p.json", b"[]", "expected a column named"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeradiffError, match=word):
        read_prompts(tmp_path / name)
    with pytest.raises(TableError, match="has no splits"):
        read_prompts(tmp_path / name, split="train")


def test_nothing_there_is_reported(tmp_path: Path) -> None:
    for path, word in ((tmp_path, "no table in"), (tmp_path / "missing.txt", "no file at")):
        with pytest.raises(TableError, match=word):
            read_prompts(path)


def test_files_without_a_header_and_with_another_delimiter(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    for content, column, delimiter in (
        ("a red one\na blue one\n", "1", None),
        ('1,"a red one"\n2,a blue one\n', "2", None),
        ("1;a red one\n2;a blue one\n", "2", ";"),
        ("id|prompt\n1|a red one\n2|a blue one\n", None, "|"),
        ("1,prompt\na red one,x\na blue one,y\n", "1", None),  # a column of that name
    ):
        file.write_text(content)
        assert read_prompts(file, column, delimiter=delimiter) == TWO
    for column in ("0", "3"):
        with pytest.raises(ConfigError, match=rf"no column '{column}'; choose --column from"):
            read_prompts(file, column)
    (tmp_path / "p.txt").write_text("a;b\n")
    for settings in ({"delimiter": ";"}, {"column": "1"}):
        with pytest.raises(TableError, match=r"only \.csv and \.tsv files have a delimiter, or no header"):
            read_prompts(tmp_path / "p.txt", **settings)


def test_semicolons_are_noticed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "p.csv"
    file.write_text('id;"prompt"\n1;"a red one"\n2;a blue one\n')
    assert read_prompts(file) == TWO
    assert "has semicolons between its fields" in caplog.text
    caplog.clear()
    file.write_text("prompt\na red one; a blue one\n")
    assert read_prompts(file) == ["a red one; a blue one"]
    assert not caplog.text


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "p.txt").write_text("a red one\n\na blue one\na red one \n\n")
    assert read_prompts(tmp_path / "p.txt") == TWO
    assert "left out 2 empty and 1 repeated of 5 prompts" in caplog.text
