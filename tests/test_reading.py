"""Files are read only where they are what they should be."""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.runs.painted import painted

from deradiff.errors import ConfigError, DeradiffError, RunFolderError
from deradiff.reading import (
    decode_image,
    parse_object,
    read_lines,
    read_object,
    read_text,
    read_whole,
    read_yaml,
)
from deradiff.runs.store import Store
from deradiff.writing import encode_png

OLD = b"what was there"


def missing(path: Path) -> None:
    """Nothing is there."""


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def no_utf8(path: Path) -> None:
    path.write_bytes(b'{"a": "caf\xe9"}')


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 200_000)


def half_a_pair(path: Path) -> None:
    path.write_bytes(b'{"a": ["\\ud800"]}')


def huge_number(path: Path) -> None:
    path.write_bytes(b'{"a": ' + b"1" * 5000 + b"}")


def empty(path: Path) -> None:
    path.write_bytes(b"")


UNREADABLE = [missing, a_folder, a_pipe, a_loop, no_utf8, deep, half_a_pair, huge_number, empty]


@pytest.mark.parametrize("make", UNREADABLE)
@pytest.mark.parametrize("name", ["file", "n" * 300, "a\0b", "in/a/file/that/is/none"])
def test_what_is_no_json_is_told(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    (tmp_path / "in").write_bytes(b"")
    with contextlib.suppress(OSError, ValueError):
        make(tmp_path / name)
    with pytest.raises(RunFolderError, match=r"^the file .* (can't be read|is damaged)") as error:
        read_object(tmp_path / name, "the file")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "file").chmod(0)
    with pytest.raises(RunFolderError, match="Permission denied"):
        read_whole(tmp_path / "file", "the file")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunFolderError, match="expected at most 268,435,456"):
        read_whole(tmp_path / "file", "the file")
    with pytest.raises(RunFolderError, match="a line of more than"):
        list(read_lines(tmp_path / "file"))


def test_pairs_of_surrogates_are_text() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}', "it") == {"a": "\U0001f600"}


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: &a {b: 1}\n" + "".join(f"k{n}: &k{n} {{<<: [{', '.join(['*a'] * 9)}]}}\n" for n in range(3)) + LAUGHS[34:],
        "a: &a [*a]\n",
        "- " * 5000 + "x",
        "a: 2026-99-99\n",
        '"\\ud800": 1\n',
        "!!python/object/apply:os.system [exit]\n",
        "a: [\n",
        "? {a: 1}\n: 2\n",
    ],
)
def test_yaml_that_is_a_bomb_or_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigError, match="can't be read"):
        read_yaml(tmp_path / "file", "--config", ConfigError)


def test_aliases_in_moderation_are_yaml(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a: &a {b: 1}\nc: {<<: *a, d: 2}\n")
    assert read_yaml(tmp_path / "file", "it", ConfigError) == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}
    assert read_text(tmp_path / "file", "it").startswith("a: ")


@pytest.mark.parametrize("harm", [lambda png: png[:50], lambda png: b"", lambda png: png[:40] + b"\xff" * 9 + png[49:]])
def test_an_image_that_cannot_be_decoded_is_told(harm: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RunFolderError, match="no image that can be decoded"):
        decode_image(harm(encode_png(Image.effect_noise((32, 32), 9))), "it", RunFolderError)


FILES = ["run.json", "cells.jsonl", "rewards.jsonl", "requests.jsonl", "images"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [a_folder, a_pipe, a_loop])
def test_a_run_folder_with_something_else_in_place_of_a_file_is_told(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    store = painted(tmp_path / "run", prompts=["one"], seeds=[0], lams=[0, 1])
    if (store.folder / name).exists():
        (store.folder / name).rename(tmp_path / "moved")
    make(store.folder / name)

    def everything() -> Any:
        again = painted(store.folder, prompts=["two"], seeds=[0], lams=[0, 1])
        with again.scoring():
            return Store.open(store.folder).index(), list(again.scores()), again.images_on_disk()

    done: list[Any] = []

    def work() -> None:
        try:
            done.append(everything())
        except DeradiffError as error:
            done.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)  # opening a pipe would wait for its other end
    assert done
    if (name, make) != ("images", a_folder):
        assert isinstance(done[0], RunFolderError), json.dumps(str(done))
