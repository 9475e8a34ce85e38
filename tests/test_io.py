"""Files are written whole or not at all, and read only where they are what they should be."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.compare.synthetic import table
from tests.runs.painted import painted

from deradiff.align.checkpoint import save_torch
from deradiff.analysis.recommend import recommend
from deradiff.anchor.source import write_card
from deradiff.compare.page import render
from deradiff.errors import ConfigError, DeradiffError, RunFolderError
from deradiff.io import (
    decode_image,
    encode_png,
    parse_object,
    read_lines,
    read_object,
    read_text,
    read_whole,
    read_yaml,
    write_whole,
)
from deradiff.report import write_report
from deradiff.report.pair import write_pair_report
from deradiff.results import Results
from deradiff.runs.export import export
from deradiff.runs.store import Store
from deradiff.search.state import SearchState, write_state
from deradiff.study import write_study

OLD = b"what was there"
Write = Callable[[Path], object]


def results() -> Results:
    rng = np.random.default_rng(0)
    lams = np.array([0, 0.5, 1.0])
    return Results(prompts=list("abcde"), seeds=[0], lams=lams.tolist(), scores={"r": lams + rng.random((5, 1, 3))})


def write_a_study(path: Path) -> None:
    found = results()
    write_study(found, recommend(found, "r"), path)


def write_a_card(path: Path) -> None:
    (path.parent / "config.json").write_text("{}")
    write_card(path.parent, {"x": "y" * 1000})


OUTPUTS: dict[str, Write] = {
    "report.html": lambda path: write_report(results(), recommend(results(), "r"), path),
    "pair.html": lambda path: write_pair_report({"one": results(), "other": results()}, ["r"], path),
    "compare.html": lambda path: write_whole(path, render([table()], {})),
    "table.csv": lambda path: export(painted(path.parent / "run"), path),
    "table.parquet": lambda path: export(painted(path.parent / "run"), path),
    "study.db": write_a_study,
    "search.json": lambda path: write_state(path.parent, SearchState(max_lam=1, prompts=("a" * 1000,), seeds=(0,))),
    "deradiff.json": write_a_card,
    "checkpoint.pt": lambda path: save_torch(path, {"a": "b" * 1000}),
    "image.png": lambda path: write_whole(path, encode_png(Image.effect_noise((64, 64), 9)), ConfigError),
}
outputs = pytest.mark.parametrize("name", OUTPUTS)


def attempt(name: str, folder: Path, limit: int | None = None) -> str:
    """What is said of an output that can't be written."""
    path = folder / name
    if not path.with_name("run").exists():
        painted(folder / "run")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(DeradiffError) as error:
            OUTPUTS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    return str(error.value)


@outputs
def test_a_folder_in_the_way_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_bytes(OLD)
    message = attempt(name, tmp_path)
    assert name in message
    assert "\n" not in message
    assert (tmp_path / name / "mine").read_bytes() == OLD


@outputs
def test_a_link_in_the_way_is_not_written_through(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"{}")
    (tmp_path / name).symlink_to(outside)
    assert "nothing is written through links" in attempt(name, tmp_path)
    assert outside.read_bytes() == b"{}"
    assert (tmp_path / name).is_symlink()


@outputs
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, name: str) -> None:
    old = b"{}" if name == "deradiff.json" else OLD
    painted(tmp_path / "run")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(old)
    message = attempt(name, tmp_path, limit=100)
    assert "can't write" in message
    assert (tmp_path / name).read_bytes() == old
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


SLOW = """
import sys, time, pathlib
from deradiff.io import replacing
with replacing(pathlib.Path(sys.argv[1])) as part, part.open("wb") as file:
    file.write(b"new")
    file.flush()
    time.sleep(600)
"""


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "file")]) as process:
        while not any(part.stat().st_size for part in tmp_path.glob(".file.*.part")):
            time.sleep(0.01)
        process.kill()
    assert (tmp_path / "file").read_bytes() == OLD


def test_every_output_is_written_by_the_one_writer() -> None:
    """Whole files come about in io.py, in the journals' writer, and in a training's own temporary folder."""
    ways = ("write_text(", "write_bytes(", ".to_parquet(", '.open("w', '"w")', '"wb")', "save_file(", ".save(out")
    allowed = {
        "io.py",
        "runs/export.py",  # opens the part that io.py gives it
        "runs/store.py",
        "align/policy.py",
        "align/checkpoint.py",
        "cli/terminal.py",
        "testbed/build.py",
    }
    source = Path(write_whole.__code__.co_filename).parent
    found = {
        file.relative_to(source).as_posix()
        for file in source.rglob("*.py")
        if any(way in file.read_text("utf-8") for way in ways)
    }
    assert found <= allowed


# Reading


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
