"""Runs that grow by the command line: what is there stays, what isn't given is the run's, what is missing is made."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.cli.shell import here
from tests.runs.painted import cells_of, paint, painted
from tests.runs.small_runs import REWARD, assert_same, contents, images, save_models, stamps
from tests.search.searches import stopping_after

from deradiff.runs import models
from deradiff.runs.results import load_results
from deradiff.runs.store import Store

ONE, TWO, THREE = "a large blue circle", "a small red square", "a purple triangle"
COMMAND = ["sweep", "--prompt", ONE, "--prompt", TWO, "--lams", "0,1", "--seeds", "2", "--steps", "1"]
COMMAND += ["--batch-size", "4"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two prompts, two seeds and two lams."""
    run = tmp_path_factory.mktemp("begun") / "run"
    assert here(*COMMAND, "--out", str(run)).stdout.startswith("8 images to sample: 16 NFE")
    return run


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "run"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may load a pipeline."""

    def refused(*args: Any, **settings: Any) -> None:
        raise AssertionError("a pipeline is loaded")

    monkeypatch.setattr(models, "load_pipeline", refused)


def grow(run: Path, *words: str) -> str:
    """What it says of the images that are to be sampled."""
    return here("sweep", "--out", str(run), *words).stdout.split(": ", 1)[0]


def listed(run: Path, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in here("sweep", "--out", str(run), *words, "--list").stdout.splitlines()]


def cells(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(row["prompt"], row["seed"], row["guidance"], row["lam"]) for row in rows}


def test_lams_seeds_and_prompts_are_added_one_after_another(run: Path, tmp_path: Path) -> None:
    """In the end it holds, to the last byte, what one command for all would have made."""
    before = stamps(run)
    assert grow(run, "--lams", "0.5") == "4 images to sample"
    assert grow(run, "--seeds", "3") == "6 images to sample (12 are there)"
    assert grow(run, "--prompt", THREE) == "9 images to sample"
    assert grow(run, "--guidance", "2") == "27 images to sample"
    assert before.items() <= stamps(run).items()
    assert len(images(run)) == 4 + 4 + 4 + 6 + 9 + 27
    once = ["sweep", "--prompt", ONE, "--prompt", TWO, "--prompt", THREE, "--lams", "0,0.5,1", "--seeds", "3"]
    once += ["--steps", "1", "--batch-size", "4", "--guidance", "1,2", "--out", str(tmp_path / "once")]
    assert here(*once).stdout.startswith("54 images to sample: ")
    assert images(run) == images(tmp_path / "once")
    grown, whole = Store.open(run), Store.open(tmp_path / "once")
    for guidance in (1.0, 2.0):
        assert_same(load_results(grown, guidance), load_results(whole, guidance))
    assert cells(listed(run)) == cells(listed(tmp_path / "once"))
    assert grow(run) == "complete"


def test_what_is_not_given_is_the_run_s(tmp_path: Path) -> None:
    run = tmp_path / "run"
    special = ["--steps", "2", "--guidance", "3", "--scheduler", "DDIMScheduler", "--batch-size", "3"]
    special += ["--no-diagnostics", "--anchor", "embedded:warmth-beta0.05-seed0"]
    here("sweep", "--prompt", ONE, "--lams", "0,1", "--seeds", "1", *special, "--out", str(run))
    before = Store.open(run).recipe
    assert grow(run, "--lams", "0.5") == "1 images to sample"
    assert Store.open(run).recipe == before
    assert (before.steps, before.scheduler, before.batch_size, before.diagnostics) == (2, "DDIMScheduler", 3, False)
    assert before.anchor_beta == 0.05  # of the anchor's card
    assert cells(listed(run)) == {(ONE, 0, 3.0, lam) for lam in (0, 0.5, 1)}
    assert grow(run, "--lams", "0.5", *special) == "complete"  # said again it is no other
    for option, value, told in [
        ("--steps", "3", "steps was 2, now 3"),
        ("--scheduler", "DDPMScheduler", "scheduler was DDIMScheduler, now DDPMScheduler"),
        ("--anchor", "embedded:warmth-beta0.1-seed0", "the anchor was embedded:warmth-beta0.05-seed0, now embedded:w"),
        ("--batch-size", "4", "batch_size was 3, now 4"),
        ("--policy", "weights", "policy was exact, now weights"),
    ]:
        refused = here("sweep", "--out", str(run), option, value, "--lams", "0.25", code=2).stderr
        assert f"{run} holds a run of another recipe ({told}" in refused
    assert len(images(run)) == 3


def test_betas_are_lams_of_the_run_s_own_anchor(run: Path) -> None:
    grow(run, "--betas", "0.4,0.8")  # of the embedded anchor of beta 0.2
    assert {row["lam"] for row in listed(run)} == {0, 0.25, 0.5, 1}


def test_a_folder_alone_goes_on_where_it_was_stopped(begun: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with stopping_after(1):
        here(*COMMAND, "--out", str(run), code=130)
    stopped = stamps(run)
    assert 0 < len(stopped) < 8
    assert grow(run) == f"{8 - len(stopped)} images to sample ({len(stopped)} are there)"
    assert stopped.items() <= stamps(run).items()
    assert images(run) == images(begun)


@pytest.mark.usefixtures("no_model")
def test_what_is_complete_is_reported_without_loading_a_model(run: Path) -> None:
    here("score", str(run), "--rewards", "warmth,faithfulness")
    before = contents(run)
    for words in (COMMAND[1:], [], ["--lams", "0,1"], ["--seeds", "1", "--prompt", TWO], ["--shard", "1/2"]):
        told = here("sweep", "--out", str(run), *words).stdout
        assert re.match(rf"complete: all [248] images asked for are in {run}\n", told)
    printed = here("sweep", "--out", str(run), "--rewards", "warmth", "--dry-run").stdout
    assert printed == f"complete: all 8 images asked for are in {run}\n"
    answered = here(
        "sweep", "--out", str(run), "--rewards", "warmth,faithfulness", "--guard", "faithfulness:-9%"
    ).stdout
    assert answered.splitlines()[-1].startswith("recommended lam: ")
    after = contents(run)
    assert after.pop("report.html")
    assert after.pop("thumbnails.json")
    assert {name for name in after if after[name] != before.get(name)} == {"requests.jsonl"}


def test_a_dry_run_shows_what_it_would_cost_and_changes_nothing(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    told = here("sweep", "--out", str(run), "--lams", "0.5", "--seeds", "3", "--dry-run").stdout
    asked = "6 images to sample: 12 NFE"
    assert re.fullmatch(rf"{asked}, about \S+ \S+ and \S+ \S+ \(measured on 8 images of this run\)\n", told)
    assert contents(run) == before
    assert here("sweep", "--out", str(run), "--lams", "0.5", "--seeds", "3").stdout.startswith(asked)
    new = [
        "sweep",
        "--prompt",
        ONE,
        "--lams",
        "0,1",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--out",
        str(tmp_path / "new"),
    ]
    assert "too few images for a timed estimate" in here(*new, "--seeds", "1", "--dry-run").stdout
    told = here(*new, "--seeds", "8", "--dry-run").stdout
    assert re.match(r"16 images to sample: 64 NFE, about .* \(measured on two calls of 2 and 4 steps\)", told)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("no_model")
def test_a_list_is_of_what_is_asked_for_and_names_the_files(run: Path) -> None:
    before = contents(run)
    assert cells(listed(run, "--lams", "0.25")) == {(p, s, 1.0, 0.25) for p in (ONE, TWO) for s in (0, 1)}
    rows = listed(run)
    assert cells(rows) == {(p, s, 1.0, lam) for p in (ONE, TWO) for s in (0, 1) for lam in (0, 1)}
    assert {row["image"] for row in rows} == set(images(run))
    assert all(Path(row["image"]).stem == row["id"] for row in rows)
    assert {row["id"] for row in rows} == {key for record in Store.open(run).records() for key in record.keys}
    assert contents(run) == before


def test_runs_of_one_recipe_are_merged(begun: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    for part, prompt in zip(parts, (ONE, TWO), strict=True):
        words = ["sweep", "--prompt", prompt, "--lams", "0,1", "--seeds", "2", "--steps", "1", "--batch-size", "4"]
        here(*words, "--out", str(part))
        here("score", str(part), "--rewards", "warmth")
    before = list(map(contents, parts))
    out = tmp_path / "both"
    assert here("merge", *map(str, parts), "--out", str(out)).stdout == f"{out}: 8 images copied from 2 runs\n"
    assert images(out) == images(begun)
    assert list(map(contents, parts)) == before
    assert grow(out) == "complete"
    here("score", str(begun), "--rewards", "warmth")
    assert_same(load_results(Store.open(out)), load_results(Store.open(begun)))
    whole = contents(out)
    assert "0 images copied" in here("merge", *map(str, parts), "--out", str(out)).stdout
    assert contents(out) == whole


def test_what_cannot_be_merged_is_reported(tmp_path: Path) -> None:
    one, other, third = (painted(tmp_path / name) for name in ("one", "other", "third"))
    out, folders = str(tmp_path / "out"), [str(one.folder), str(other.folder)]
    painted(tmp_path / "apart", recipe={"steps": 3})
    refused = here("merge", folders[0], str(tmp_path / "apart"), "--out", out, code=2).stderr
    assert "runs of different recipes (steps is 25 in the first and 3 in the second)" in refused
    (tmp_path / "link").symlink_to(one.folder)
    for same in (folders[0], f"{folders[0]}/../one", str(tmp_path / "link")):
        assert "the same run is given twice" in here("merge", folders[0], same, "--out", out, code=2).stderr
    first, *rest = cells_of(other)
    paint(other, [first], version=1)
    told = here("merge", *folders, "--out", out, code=1)
    assert f"{first.prompt!r}, seed {first.seed}, lam {first.lam:g}: another image in {other.folder}\n" in told.stderr
    assert "36 images copied" in told.stdout
    assert images(Path(out)) == images(one.folder)
    third.image(rest[0]).write_bytes(third.image(first).read_bytes())
    damaged = here("merge", str(third.folder), "--out", str(tmp_path / "new"), code=2).stderr
    assert f"{third.image(rest[0])} isn't the one that was journalled; delete it, then merge again" in damaged


def test_the_pipeline_s_own_guidance_stands_beside_others(tmp_path: Path) -> None:
    """It was never named, so it has no number."""
    model, anchor = save_models(tmp_path)
    run, asked = tmp_path / "run", ["--rewards", REWARD]
    words = ["--prompt", ONE, "--prompt", TWO, "--lams", "0,1", "--seeds", "1", "--steps", "1"]
    first = here("sweep", "--model", model, "--anchor", anchor, *words, *asked, "--out", str(run)).stdout
    assert first.splitlines()[-1].startswith("recommended lam: ")
    both = here("sweep", "--out", str(run), "--guidance", "3", *asked).stdout
    assert both.startswith("4 images to sample")
    for printed in (both, here("recommend", str(run), "--objective", REWARD).stdout):
        found = re.findall("^recommended lam at (.*?):", printed, re.MULTILINE)
        assert found == ["the default guidance", "guidance 3"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("the default guidance", "guidance 3"))
    assert cells(listed(run)) == {(p, 0, g, lam) for p in (ONE, TWO) for g in (None, 3.0) for lam in (0, 1)}
    alone = here("recommend", str(run), "--objective", REWARD, "--guidance", "3").stdout
    assert alone.splitlines()[-1] == both.splitlines()[-1]
    assert "8 of the 8 images" in here("export", str(run), "--out", str(tmp_path / "t.csv")).stdout
    assert cells(listed(run, "--lams", "0.5")) == {(p, 0, g, 0.5) for p in (ONE, TWO) for g in (None, 3.0)}


def test_a_prompt_that_a_reward_cannot_score_spoils_nothing(tmp_path: Path) -> None:
    """It is named before anything is sampled; of a run that has it already, the other prompts have their scores."""
    run, dog, asked = tmp_path / "run", ["--prompt", "a dog"], ["--rewards", "warmth,faithfulness"]
    told = here(*COMMAND, *dog, *asked, "--out", str(run), code=2).stderr
    assert "the reward faithfulness can't score 1 of 3 prompts ('a dog'): not a caption of the testbed" in told
    assert not run.exists()
    here(*COMMAND, *dog, "--out", str(run))
    told = here("score", str(run), *asked, code=2).stderr
    assert "faithfulness failed on 4 images of 1 prompt ('a dog'): not a caption" in told
    assert "The 8 other images are scored" in told
    left_out = r"4 images of 1 of 3 prompts \('a dog'\), which have no score of faithfulness"
    question = ["--objective", "warmth", "--guard", "faithfulness:-50%"]
    assert re.search(left_out, here("recommend", str(run), *question).stdout)
    here("report", str(run), *question)
    assert "which have no score of faithfulness" in (run / "report.html").read_text()
    grown = here("sweep", "--out", str(run), "--lams", "0.5", *asked, code=2)
    assert grown.stdout.startswith("6 images to sample")
    assert "6 images" in grown.stderr
    assert (run / "report.html").exists()
    searched = here("search", "--out", str(run), *question, "--max-images", "24").stdout
    assert "left out: 1 of 3 prompts that can't be scored: 'a dog'" in searched
    assert re.search("which have no score of faithfulness", here("recommend", str(run), *question).stdout)
    told = here("search", "--out", str(run), *question, "--prompt", "a cat", "--prompt", ONE, code=2).stderr
    assert "can't score 1 of 1 prompts ('a cat')" in told
