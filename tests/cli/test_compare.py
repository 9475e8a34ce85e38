"""``deradiff compare`` as a person runs it, and as a machine that dies runs it."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli.shell import DERADIFF, deradiff, mistaken

SMALL = ["compare", "--rewards", "warmth", "--seeds", "1", "--steps", "1", "--batch-size", "1"]
SMALL += ["--prompt", "a large blue circle on a white background", "--prompt", "a small red square"]
SMALL += ["--anchor", "embedded:warmth-beta0.05-seed0"]
SMALL += ["--scratch", "embedded:warmth-beta0.05-seed*", "--scratch", "embedded:warmth-beta0.2-seed1"]
TWO = ["--schedulers", "DDIMScheduler,EulerAncestralDiscreteScheduler"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison, and what was printed."""
    out = tmp_path_factory.mktemp("compare") / "run"
    return out, deradiff(*SMALL, *TWO, "--out", str(out)).stdout


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
    last = printed.strip().splitlines()[-5:]
    assert [line.split(": ")[0] for line in last] == list(found)[:5]
    assert last[0] == f"share_of_spread_deradiff: {found['share_of_spread_deradiff']:.1%}"
    for row in found["rows"]:
        assert f"({row['share_of_spread']:.1%})" in printed


def test_what_was_killed_ends_as_if_it_had_not_been(whole: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [DERADIFF, *SMALL, *TWO, "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(out.rglob("*.png"))) < 9:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 9 <= len(list(out.rglob("*.png"))) < len(list(whole[0].rglob("*.png")))
    assert not (out / "results.json").exists()
    deradiff(*words[1:])
    assert (out / "results.json").read_bytes() == (whole[0] / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["compare", "--rewards", ",", "--prompt", "x"], "no rewards"),
        (["compare", "--rewards", "warmth", "--prompt", "x", "--scratch", "no/such-*"], "nothing matches 'no/such-*'"),
        ([*SMALL, "--anchor", "someone/sdxl-dpo"], "card of someone/sdxl-dpo lacks beta"),
    ],
)
def test_mistakes_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mistaken(*words, expected=expected)
