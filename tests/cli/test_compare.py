"""``deradiff compare`` as a person runs it, and as a machine that dies runs it."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from tests import processes
from tests.cli.shell import here, mistaken

from deradiff import testbed
from deradiff.anchor.location import Location
from deradiff.cli.compare import _aligned, _matching
from deradiff.errors import AnchorError

SMALL = ["compare", "--rewards", "warmth", "--seeds", "1", "--steps", "1", "--batch-size", "1"]
SMALL += ["--prompt", "a large blue circle on a white background", "--prompt", "a small red square"]
SMALL += ["--anchor", "embedded:warmth-beta0.05-seed0"]
SMALL += ["--retrained", "embedded:warmth-beta0.05-seed*", "--retrained", "embedded:warmth-beta0.2-seed1"]
TWO = ["--schedulers", "DDIMScheduler,EulerAncestralDiscreteScheduler"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison, and what was printed."""
    out = tmp_path_factory.mktemp("compare") / "run"
    return out, here(*SMALL, *TWO, "--out", str(out)).stdout


def test_a_table_a_page_and_the_headline(whole: tuple[Path, str]) -> None:
    out, printed = whole
    found = json.loads((out / "results.json").read_text())
    assert [(own["scheduler"], own["reward"]) for own in found["tables"]] == [
        ("DDIMScheduler", "warmth"),
        ("EulerAncestralDiscreteScheduler", "warmth"),
    ]
    assert found["betas"] == [0.05, 0.2]
    assert f"page: {out / 'compare.html'}" in printed
    assert "Seed noise" not in printed  # two training seeds at .05 make it known
    last = printed.strip().splitlines()[-7:]
    assert [line.split(": ")[0] for line in last] == list(found)[:7]
    assert last[0] == f"share_of_spread_deradiff: {found['share_of_spread_deradiff']:.1%}"
    for row in found["rows"]:
        assert f"({row['share_of_spread']:.1%})" in printed


def images(folder: Path) -> int:
    """How many there are; folders that go while one looks don't matter."""
    return sum(name.endswith(".png") for _, _, names in os.walk(folder) for name in names)


def test_what_was_killed_ends_as_if_it_had_not_been(whole: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*SMALL, *TWO, "--out", str(out)]
    process = processes.start_command(*words, output=tmp_path / "printed.txt")
    while process.is_alive() and images(out) < 9:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 9 <= images(out) < images(whole[0])
    assert not (out / "results.json").exists()
    here(*words)
    assert (out / "results.json").read_bytes() == (whole[0] / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["compare", "--rewards", ",", "--prompt", "x"], "rewards are ','; give names"),
        (
            ["compare", "--rewards", "warmth", "--prompt", "x", "--retrained", "no/such-*"],
            "nothing matches 'no/such-*'",
        ),
        ([*SMALL, "--anchor", "someone/sdxl-dpo"], "no folder or file someone/sdxl-dpo"),
    ],
)
def test_mistakes_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mistaken(*words, expected=expected)


def test_patterns_name_local_models_unless_they_say_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("warmth-beta0.05-seed0", "br[1]"):
        shutil.copytree(testbed.anchor_path("warmth-beta0.05-seed0"), tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert _matching("*seed0") == ["warmth-beta0.05-seed0"]
    assert _matching("br[1]") == ["br[1]"]
    assert len(_matching("embedded:*seed0")) == 5
    with pytest.raises(AnchorError, match=r"notes\.txt.*matched by '\*': narrow that, or move it away"):
        _aligned(["*"], Location())
