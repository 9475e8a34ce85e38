"""Files are written whole or not at all."""

import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.compare.synthetic import table
from tests.runs.painted import painted

from deradiff import writing
from deradiff.align.checkpoint import save_torch
from deradiff.analysis.recommend import recommend
from deradiff.anchor.source import write_card
from deradiff.compare.page import render
from deradiff.errors import ConfigError, DeradiffError
from deradiff.report import write_report
from deradiff.report.pair import write_pair_report
from deradiff.results import Results
from deradiff.runs.export import export
from deradiff.search.state import SearchState, write_state
from deradiff.study import write_study
from deradiff.writing import encode_png, replacing_entries, write_whole

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


def killed_before(number: int, work: Callable[[], object]) -> bool:
    """Whether a process was killed before its access to files of that number, from 1; else it did all of its work."""
    if (child := os.fork()) == 0:
        accesses = itertools.count(1)

        def kill(event: str, _: object) -> None:
            if event.startswith(("os.", "open", "shutil.", "tempfile.", "ctypes.")) and next(accesses) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_everywhere(work: Callable[[], object], check: Callable[[], object]) -> None:
    """Kill a process before each of its accesses to files, one after another, and check what is there each time."""
    number = next(number for number in itertools.count(1) if not (killed_before(number, work), check())[0])
    assert number > 5


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, seen = tmp_path / "file", set[bytes]()
    path.write_bytes(OLD)
    kill_everywhere(lambda: write_whole(path, b"new"), lambda: seen.add(path.read_bytes()))
    assert seen == {OLD, b"new"}


def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    seen = list[tuple[bytes, bytes]]()

    def write(content: bytes) -> None:
        with replacing_entries(tmp_path) as part:
            (part / "unet").mkdir()
            for name in ("unet/config", "unet/weights", "card"):
                (part / name).write_bytes(content)

    def look() -> None:
        config, weights, card = ((tmp_path / name).read_bytes() for name in ("unet/config", "unet/weights", "card"))
        assert config == weights
        seen.append((weights, card))

    write(OLD)
    (tmp_path / "mine").write_bytes(OLD)
    kill_everywhere(lambda: write(b"new"), look)
    assert set(seen) == {(OLD, OLD), (b"new", OLD), (b"new", b"new")}  # never a new card of old weights
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card", "mine", "unet"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_is_replaced_with_all_that_is_in_it_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:  # a system that can't let folders change places
        monkeypatch.setattr(writing, "_exchange", lambda one, other: False)

    def write(*names: str, interrupted: bool = False) -> None:
        with replacing_entries(tmp_path, ConfigError) as part:
            for name in names:
                (part / name).parent.mkdir(exist_ok=True)
                (part / name).write_bytes(OLD)
            if interrupted:
                raise KeyboardInterrupt

    def files() -> list[str]:
        return sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())

    write("unet/first")
    write("unet/second", "scheduler")
    assert files() == ["scheduler", "unet/second"]
    with pytest.raises(ConfigError, match="scheduler: a file is in the way"):
        write("scheduler/third", "unet/third")
    with pytest.raises(ConfigError, match="unet: a folder is in the way"):
        write("unet")
    with pytest.raises(KeyboardInterrupt):
        write("unet/fourth", interrupted=True)
    assert files() == ["scheduler", "unet/second"]


def test_every_output_is_written_by_the_one_writer() -> None:
    """Whole files come about in writing.py, in the journals' writer, and in a training's own temporary folder."""
    ways = ("write_text(", "write_bytes(", ".to_parquet(", '.open("w', '"w")', '"wb")', "save_file(", ".save(out")
    allowed = {
        "writing.py",
        "runs/export.py",  # opens the part that writing.py gives it
        "runs/writer.py",
        "cluster/images.py",  # writes parts, which the journal's writer takes over
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
