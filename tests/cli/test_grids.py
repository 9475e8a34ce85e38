"""Sweeps over guidance x lam, in shards, listed and exported: the command line on the embedded pipeline."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.shell import DERADIFF, here
from tests.runs.painted import REQUESTS, paint, painted
from tests.runs.small_runs import assert_same, contents, images

from deradiff.cli.running import what_it_took
from deradiff.runs.cells import Cell, Request
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.store import Store

PROMPTS = ["a large blue circle on a white background", "a small red square on a green background"]
SMALL = ["--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--lams", "0,1,2", "--seeds", "2", "--steps", "1"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two guidances, and what was printed."""
    run = tmp_path_factory.mktemp("grid") / "run"
    done = here("sweep", *SMALL, "--guidance", "3,1", "--rewards", "warmth", "--out", str(run))
    return run, done.stdout


def test_each_guidance_has_its_tab_and_its_lam(grid: tuple[Path, str]) -> None:
    run, printed = grid
    assert re.findall(r"recommended lam at guidance (\S+):", printed) == ["1", "3"]
    assert {path.name for path in run.glob("*.html")} == {"report.html"}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'role="tab" .*>(guidance \d)', page) == ["guidance 1", "guidance 3"]
    here("report", str(run), "--objective", "warmth", "--guidance", "3", "--markdown")
    assert "at guidance 3" in (run / "report-guidance-3.html").read_text(encoding="utf-8")
    assert "Recommended lam at guidance 3" in (run / "report-guidance-3.md").read_text(encoding="utf-8")
    words = ["recommend", str(run), "--objective", "warmth"]
    assert here(*words).stdout.count("recommended lam") == 2
    alone = here(*words, "--guidance", "3").stdout
    assert alone.count("recommended lam") == 1
    assert alone.splitlines()[-1] == printed.splitlines()[-1]
    assert "guidance 1, 3" in here(*words, "--guidance", "5", code=2).stderr


def test_guidances_are_really_drawn_with(grid: tuple[Path, str], tmp_path: Path) -> None:
    """A sweep of one guidance alone makes the same images, told by their names and scores."""
    here("sweep", *SMALL, "--guidance", "3", "--rewards", "warmth", "--out", str(tmp_path / "alone"))
    one, three = (load_results(Store.open(grid[0]), guidance) for guidance in (1.0, 3.0))
    alone = load_results(Store.open(tmp_path / "alone"))
    assert_same(three, alone)
    assert set(images(tmp_path / "alone").items()) < set(images(grid[0]).items())
    assert not set(one.images.flat) & set(three.images.flat)
    assert not np.allclose(one.scores["warmth"], three.scores["warmth"])


def test_an_export_has_a_row_an_image(grid: tuple[Path, str], tmp_path: Path) -> None:
    told = here("export", str(grid[0]), "--out", str(tmp_path / "t.parquet")).stdout
    assert told == f"{tmp_path / 't.parquet'}: 24 of the 24 images asked for\n"
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.num_rows == 24
    assert pa.types.is_floating(table.schema.field("warmth").type)
    assert all((grid[0] / image).is_file() for image in table["image"].to_pylist())
    assert ".parquet or .csv" in here("export", str(grid[0]), "--out", "t.xlsx", code=2).stderr


def test_an_export_counts_what_was_asked_for(tmp_path: Path) -> None:
    store, table = painted(tmp_path / "run"), str(tmp_path / "t.csv")
    paint(store, [Cell("another", 0, None, 0.5)])
    assert here("export", str(store.folder), "--out", table).stdout == (
        f"{table}: 36 of the 36 images asked for, and 1 more\n"
    )
    (store.folder / REQUESTS).unlink()
    assert here("export", str(store.folder), "--out", table).stdout == f"{table}: 37 images\n"


def test_two_runs_have_no_answer_to_write(tmp_path: Path) -> None:
    one, other = (str(painted(tmp_path / name).folder) for name in ("one", "other"))
    for option in ("--figures", "--markdown"):
        said = here("report", one, other, "--objective", "warmth", option, code=2).stderr
        assert "two runs side by side have none; leave them out" in said


def test_a_folder_alone_says_what_to_sample(grid: tuple[Path, str], tmp_path: Path) -> None:
    run, printed = Path(shutil.copytree(grid[0], tmp_path / "run")), grid[1]
    before = contents(run)
    again = here("sweep", "--out", str(run), "--rewards", "warmth").stdout
    assert again.startswith(f"complete: all 24 images asked for are in {run}\n")
    assert re.findall("recommended .*", again) == re.findall("recommended .*", printed)
    after = contents(run)
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"report.html", "thumbnails.json"}  # commands in the report name the folder
    gone = sorted((run / "images").rglob("*.png"))[::5]
    for file in gone:
        file.unlink()
    told = here("sweep", "--out", str(run)).stdout
    assert told.startswith(f"{len(gone)} images to sample ({24 - len(gone)} are there): ")
    assert images(run) == images(grid[0])
    refused = here("sweep", "--out", str(run), "--no-diagnostics", "--steps", "2", code=2).stderr
    assert "another recipe (steps was 1, now 2)" in refused
    assert "no prompts" in here("sweep", "--out", str(tmp_path / "empty"), code=2).stderr


def test_a_list_names_the_images_that_a_sweep_makes(grid: tuple[Path, str], tmp_path: Path) -> None:
    words = ["sweep", *SMALL, "--guidance", "1,3", "--out", str(tmp_path / "new"), "--list"]
    listed = [json.loads(line) for line in here(*words).stdout.splitlines()]
    made = {path.relative_to(grid[0]).as_posix() for path in (grid[0] / "images").rglob("*.png")}
    assert {row["image"] for row in listed} == made
    assert len({row["id"] for row in listed}) == len(listed) == 24
    keys = ("prompt", "seed", "guidance", "lam")
    cells = {tuple(row[key] for key in keys) for row in listed}
    assert cells == {(p, s, g, lam) for p in PROMPTS for s in (0, 1) for g in (1, 3) for lam in (0, 1, 2)}
    shards = [here(*words, "--shard", f"{k}/2").stdout.splitlines() for k in (1, 2)]
    assert sorted([json.loads(line)["id"] for shard in shards for line in shard]) == sorted(r["id"] for r in listed)
    assert all(shards)
    again = here("sweep", "--out", str(grid[0]), "--list").stdout
    assert {json.loads(line)["id"] for line in again.splitlines()} == {row["id"] for row in listed}
    assert not (tmp_path / "new").exists()


def test_a_list_starts_at_once_and_may_be_cut_short(tmp_path: Path) -> None:
    """Of a million images the first is printed and the reader goes away: no memory is filled, nothing is complained."""
    words = [DERADIFF, "sweep", "--prompt", "x", "--seeds", "60000", "--lams", "0:2:17", "--list"]
    words += ["--out", str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["lam"] == 0
        process.stdout.close()
        assert process.stderr.read() == ""


def test_shards_make_the_run_together(grid: tuple[Path, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = here("sweep", *SMALL, "--guidance", "1,3", "--shard", "2/2", "--out", str(run)).stdout
    assert f"when all 2 shards are done, with: deradiff score {run} --rewards NAME" in first
    half = len(images(run))
    assert 0 < half < 24
    assert f"{half} of the 24 images asked for" in here("export", str(run), "--out", str(tmp_path / "t.csv")).stdout
    here("sweep", "--shard", "1/2", "--out", str(run))
    assert images(run) == images(grid[0])
    assert "complete: all 24 images" in here("sweep", "--out", str(run)).stdout
    here("score", str(run), "--rewards", "warmth")
    for guidance in (1.0, 3.0):
        assert_same(load_results(Store.open(grid[0]), guidance), load_results(Store.open(run), guidance))


def test_a_shard_without_images_says_so(tmp_path: Path) -> None:
    words = ["sweep", "--prompt", "x", "--lams", "0,1", "--seeds", "1", "--steps", "1", "--shard", "2/2"]
    told = here(*words, "--out", str(tmp_path / "run")).stdout
    assert "no images for this shard: there are more shards than blocks" in told
    assert "complete" not in told


def test_network_calls_are_counted_over_all_journals(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Recipe(model="m", anchor="a", batch_size=2))
    cells = list(Request(prompts=["a", "b", "c"], seeds=[0], lams=[0, 1]).cells())
    for shard, nfe in (((0, 2), 30), ((1, 2), 970)):
        with run.store.writing(shard) as writer:
            own, cells = cells[:3], cells[3:]
            keys = list(map(run.store.keys, own))
            info = SamplingInfo(nfe=nfe, nfe_published=375)
            writer.append(CellsRecord.of(own, keys, ["x"] * 3, {}, info))
    assert what_it_took(run) == f"6 images in {tmp_path / 'run'}: 1,000 NFE, 133% of the naive cost"
