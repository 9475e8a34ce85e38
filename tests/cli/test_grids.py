"""Sweeps over guidance x lam, in shards, listed, resumed and exported: real processes on the embedded pipeline."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.shell import DERADIFF, deradiff

from deradiff.cli.running import what_it_took
from deradiff.sweep import Journal, Plan
from deradiff.sweep.records import BatchRecord

PROMPTS = ["a large blue circle on a white background", "a small red square on a green background"]
SMALL = ["--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--lams", "0,1,2", "--seeds", "2", "--steps", "1"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two guidances, and what was printed."""
    run = tmp_path_factory.mktemp("grid") / "run"
    done = deradiff("sweep", *SMALL, "--guidance", "3,1", "--rewards", "warmth", "--out", str(run))
    return run, done.stdout


def test_each_guidance_has_its_report_and_its_lam(grid: tuple[Path, str]) -> None:
    run, printed = grid
    assert re.findall(r"recommended lam at guidance (\S+):", printed) == ["1", "3"]
    assert {path.name for path in run.glob("*.html")} == {"report-guidance-1.html", "report-guidance-3.html"}
    for guidance in ("1", "3"):
        page = (run / f"report-guidance-{guidance}.html").read_text(encoding="utf-8")
        assert f"at guidance {guidance}</title>" in page
    words = ["recommend", str(run), "--objective", "warmth"]
    assert deradiff(*words).stdout.count("recommended lam") == 2
    alone = deradiff(*words, "--guidance", "3").stdout
    assert alone.count("recommended lam") == 1
    assert alone.splitlines()[-1] == printed.splitlines()[-1]
    assert "guidance 1, 3" in deradiff(*words, "--guidance", "5", code=2).stderr


def test_guidances_are_really_drawn_with(grid: tuple[Path, str]) -> None:
    """A sweep of one guidance alone makes the same images, told by their names and scores."""
    journal = Journal.open(grid[0])
    one, three = (journal.results(guidance) for guidance in (1.0, 3.0))
    assert not set(one.images.flat) & set(three.images.flat)
    assert not np.allclose(one.scores["warmth"], three.scores["warmth"])


def test_an_export_has_a_row_an_image(grid: tuple[Path, str], tmp_path: Path) -> None:
    assert "24 of the run's 24 images" in deradiff("export", str(grid[0]), "--out", str(tmp_path / "t.parquet")).stdout
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.num_rows == 24
    assert pa.types.is_floating(table.schema.field("warmth").type)
    assert all((grid[0] / image).is_file() for image in table["image"].to_pylist())
    assert ".parquet or .csv" in deradiff("export", str(grid[0]), "--out", "t.xlsx", code=2).stderr


def test_resume_takes_the_plan_from_the_folder(grid: tuple[Path, str], tmp_path: Path) -> None:
    run, printed = grid
    before = (run / "journal.jsonl").read_bytes()
    again = deradiff("sweep", "--resume", "--out", str(run), "--rewards", "warmth").stdout
    assert again == printed
    assert (run / "journal.jsonl").read_bytes() == before
    refused = deradiff("sweep", "--resume", "--out", str(run), "--steps", "1", "--no-diagnostics", code=2).stderr
    assert "leave out --steps, --diagnostics" in refused
    assert "no run folder" in deradiff("sweep", "--resume", "--out", str(tmp_path), code=2).stderr


def test_a_list_names_the_images_that_a_sweep_makes(grid: tuple[Path, str]) -> None:
    words = ["sweep", *SMALL, "--guidance", "1,3", "--list"]
    listed = [json.loads(line) for line in deradiff(*words).stdout.splitlines()]
    made = {path.relative_to(grid[0]).as_posix() for path in (grid[0] / "images").rglob("*.png")}
    assert {row["image"] for row in listed} == made
    assert len({row["id"] for row in listed}) == len(listed) == 24
    keys = ("prompt", "seed", "guidance", "lam")
    cells = {tuple(row[key] for key in keys) for row in listed}
    assert cells == {(p, s, g, lam) for p in PROMPTS for s in (0, 1) for g in (1, 3) for lam in (0, 1, 2)}
    shards = [deradiff(*words, "--shard", f"{k}/2").stdout.splitlines() for k in (1, 2)]
    assert sorted([json.loads(line)["id"] for shard in shards for line in shard]) == sorted(r["id"] for r in listed)
    assert all(shards)
    resumed = deradiff("sweep", "--resume", "--out", str(grid[0]), "--list").stdout
    assert [json.loads(line) for line in resumed.splitlines()] == listed


def test_a_list_starts_at_once_and_may_be_cut_short() -> None:
    """Of a million images the first is printed and the reader goes away: no memory is filled, nothing is complained."""
    words = [DERADIFF, "sweep", "--prompt", "x", "--seeds", "60000", "--lams", "0:2:17", "--list"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["lam"] == 0
        process.stdout.close()
        assert process.stderr.read() == ""


def test_shards_make_the_run_together(grid: tuple[Path, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = deradiff("sweep", *SMALL, "--guidance", "1,3", "--shard", "2/2", "--out", str(run)).stdout
    assert f"when all 2 shards are done, with: deradiff score {run}" in first
    assert "lacks 12 of 24 images" in deradiff("score", str(run), "--rewards", "warmth", code=2).stderr
    deradiff("sweep", "--resume", "--shard", "1/2", "--out", str(run))
    deradiff("score", str(run), "--rewards", "warmth")
    whole, sharded = Journal.open(grid[0]), Journal.open(run)
    for guidance in (1.0, 3.0):
        assert np.array_equal(whole.results(guidance).scores["warmth"], sharded.results(guidance).scores["warmth"])


def test_a_shard_without_images_says_so(tmp_path: Path) -> None:
    words = ["sweep", "--prompt", "x", "--lams", "0,1", "--seeds", "1", "--steps", "1", "--shard", "2/2"]
    assert "fewer batches (1) than" in deradiff(*words, "--out", str(tmp_path / "run")).stdout


def test_network_calls_are_counted_over_all_batches(tmp_path: Path) -> None:
    plan = Plan.of(model="m", anchor="a", prompts=["a", "b", "c"], seeds=[0], lams=[0, 1], batch_size=2)
    journal = Journal(tmp_path / "run", plan)
    with journal.writing() as writer:
        for batch, calls in ((0, 30), (1, 70), (2, 900)):
            info = {"calls": calls, "calls_published": 250, "checks": []}
            writer.append(BatchRecord(batch=batch, sha256=["x"] * 2, path_kl=[None] * 2, info=info))
    told = what_it_took(journal, (0, 1))
    assert "6 images" in told
    assert "1,000 network calls: 133% of the 750 that two at each step of every lam would be" in told
    assert "930 network calls" in what_it_took(journal, (0, 2))  # batches 0 and 2
