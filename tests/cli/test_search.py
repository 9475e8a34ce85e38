"""``deradiff search`` in a run's folder, and what comes back to it: the embedded pipeline, at few steps."""

import re
import shutil
from pathlib import Path
from typing import Any

import optuna
import pyarrow.csv as pacsv
import pytest
from tests.cli.shell import as_typed, here
from tests.runs.small_runs import contents, images, stamps
from tests.search.searches import stopping_after

from deradiff import testbed
from deradiff.runs.results import load_results
from deradiff.runs.store import Store
from deradiff.search.state import read_state

ANCHOR = ["--anchor", "embedded:warmth-beta0.025-seed0"]
ASKED = ["--objective", "warmth", "--guard", "faithfulness:-10%"]
PROMPTS = [word for prompt in testbed.DEMO_PROMPTS[:6] for word in ("--prompt", prompt)]
WORDS = ["search", *ASKED, *ANCHOR, *PROMPTS, "--steps", "2", "--max-images", "40", "--batch-size", "6"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, quick: int) -> tuple[Path, str]:
    """A search, and what it printed."""
    run = tmp_path_factory.mktemp("search") / "run"
    return run, here(*WORDS, "--out", str(run)).stdout


def last(printed: str) -> str:
    return printed.splitlines()[-1]


def check_lams_have_rows(printed: str) -> None:
    """Each lam that the answer names has a row with its figures."""
    shown = {row[0] for row in re.findall(r"^ *([\d.]+) .*(reference|\[)", printed, re.MULTILINE)}
    named = re.findall(r"(?:Gain in \w+ at lam =|best estimate|would show lam =|recommended lam:) ([\d.]*\d)", printed)
    assert len(named) >= 2
    assert set(named) <= shown


def rows(path: Path) -> list[dict[str, Any]]:
    return pacsv.read_csv(path).to_pylist()


def test_it_reports_each_block_and_the_lam_last(whole: tuple[Path, str]) -> None:
    run, printed = whole
    first, *others = printed.splitlines()
    assert first == "lam 0, 0.5, 1, 6 prompts x 1 seed: 18 images to sample"
    sampled = sum(int(found) for found in re.findall(r": (\d+) images to sample", printed))
    assert sampled == len(images(run)) <= 40
    (stopped,) = (line for line in others if line.startswith("stopped: "))
    assert stopped.endswith(f"; all is in {run}")
    counted = f"{sampled} images, {sampled / (6 * 4 * 33):.0%} of the 792 of a grid of 33 lams"
    assert counted in printed
    assert last(printed).startswith("recommended lam: ")
    assert "of the images asked for aren't there yet" not in printed
    assert load_results(Store.open(run)).details["Guidance"] == "1"


@pytest.mark.usefixtures("quick")
def test_the_same_command_again_samples_nothing_and_answers_the_same(whole: tuple[Path, str]) -> None:
    run, printed = whole
    before = contents(run)
    again = here(*WORDS, "--out", str(run)).stdout
    assert "to sample" not in again
    assert again[again.index("stopped: ") :] == printed[printed.index("stopped: ") :]
    assert contents(run) == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("batches", [2, 4], ids=lambda count: f"after {count} batches")
def test_a_stopped_search_goes_on_by_the_same_command(whole: tuple[Path, str], tmp_path: Path, batches: int) -> None:
    """It was to use all seeds, whatever it got to: amid its first block, and amid others."""
    run = tmp_path / "run"
    with stopping_after(batches):
        here(*WORDS, "--out", str(run), code=130)
    before = stamps(run)
    assert 0 < len(before) < len(images(whole[0]))
    again = here(*WORDS, "--out", str(run)).stdout
    assert before.items() <= stamps(run).items()
    assert last(again) == last(whole[1])
    assert images(run) == images(whole[0])
    assert "of the images asked for aren't there yet" not in again


@pytest.mark.usefixtures("quick")
def test_one_comes_back_to_a_search_by_the_commands_of_a_run(whole: tuple[Path, str], tmp_path: Path) -> None:
    run, printed = whole
    read = here("recommend", str(run), *ASKED).stdout
    assert read == printed[printed.index("images, ") - 3 :].lstrip()
    unknown = here("recommend", str(run), "--objective", "contrast", code=2).stderr
    assert "no reward 'contrast' here; expected one of: faithfulness, warmth" in unknown.replace(
        "warmth, faithfulness", "faithfulness, warmth"
    )
    here("score", str(run), "--rewards", "contrast")
    assert last(here("recommend", str(run), "--objective", "contrast").stdout).startswith("recommended lam: ")
    here("export", str(run), "--out", str(tmp_path / "all.csv"))
    table = rows(tmp_path / "all.csv")
    assert len(table) == len(images(run))
    assert all((run / row["image"]).is_file() and row["contrast"] for row in table)
    lams = sorted({row["lam"] for row in table})
    here("export", "--format", "optuna", str(run), *ASKED, "--out", str(tmp_path / "s.db"))
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 's.db'}").trials
    assert [trial.params["lam"] for trial in trials] == lams
    reported = here("report", str(run), *ASKED).stdout
    assert last(reported) == last(printed)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(image in page for image in images(run))  # each full picture is linked
    assert "of the exact mixture" in here("reweight", str(run), "--objective", "warmth").stdout
    assert "L rises by" in here("calibrate", str(run), "--objective", "warmth").stdout
    assert (
        "guidance 1, and 7 is not among them" in here("recommend", str(run), *ASKED, "--guidance", "7", code=2).stderr
    )


@pytest.mark.usefixtures("quick")
def test_a_search_of_a_swept_folder_takes_all_else_from_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    here("sweep", *PROMPTS, *ANCHOR, "--lams", "0,0.3,1", "--seeds", "2", "--steps", "2", "--out", str(run))
    recipe, before = Store.open(run).recipe, stamps(run)
    printed = here("search", *ASKED, "--max-images", "50", "--out", str(run)).stdout
    assert printed.startswith("lam 0, 0.5, 1, 6 prompts x 1 seed: 6 images to sample\n")
    assert "a grid of 34 lams" in printed
    assert before.items() <= stamps(run).items()
    assert len(images(run)) <= 50
    assert Store.open(run).recipe == recipe
    state = read_state(run)
    assert state is not None
    assert set(state.prompts) == set(testbed.DEMO_PROMPTS[:6])
    refused = here("search", *ASKED, "--steps", "3", "--out", str(run), code=2).stderr
    assert "another recipe (steps was 2, now 3)" in refused


@pytest.mark.usefixtures("quick")
def test_a_sweep_of_a_searched_folder_grows_it_and_answers_from_all(whole: tuple[Path, str], tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    before = stamps(run)
    assert here("sweep", "--out", str(run)).stdout.startswith("complete: ")
    words = ["sweep", "--out", str(run), "--lams", "0.7", "--rewards", "warmth,faithfulness", "--objective", "warmth"]
    printed = here(*words, "--guard", "faithfulness:-10%").stdout
    seeds = load_results(Store.open(run)).shape[1]
    assert printed.startswith(f"{6 * seeds} images to sample")
    assert before.items() <= stamps(run).items()
    assert f"{len(images(run))} images, " in printed
    assert "of a grid of 34 lams" in printed
    assert last(printed) == last(here("recommend", str(run), *ASKED).stdout)


@pytest.mark.usefixtures("quick")
def test_what_a_search_advises_costs_what_it_says(whole: tuple[Path, str]) -> None:
    """A strict guard, so that more prompts are asked for."""
    run, _ = whole
    found = []
    for margin in (1, 2, 3, 5, 8, 10, 15, 20, 30):
        printed = here("recommend", str(run), "--objective", "warmth", "--guard", f"faithfulness:-{margin}%").stdout
        check_lams_have_rows(printed)
        found += re.findall(r"^(\d+) more prompts, .*: (deradiff sweep .*# ([\d,]+) images.*)$", printed, re.MULTILINE)
    assert found
    for more, command, count in found:
        words = as_typed(command)
        place = words.index("--prompts")
        prompts = [word for number in range(int(more)) for word in ("--prompt", f"a further one, {number}")]
        rest = here(*words[:place], *prompts, *words[place + 2 :], "--list").stdout
        assert len(rest.splitlines()) == int(count.replace(",", ""))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--objective", "diversity"], "diversity compares images with each other, and a search samples few of them"),
        (["--objective", "warmth", "--guard", "warmth"], "'warmth' is named twice"),
        (["--objective", "warmth", "--guidance", "1,2"], "at one guidance, got 1, 2"),
        (["--objective", "warmth", "--max-images", "2"], "takes 6 images, and 2 are allowed"),
        (["--objective", "warmth", "--max-lam", "0"], "max_lam"),
        (["--objective", "nothing"], "no reward is called"),
        (["--objective", "warmth", "--rewards", "nothing"], "no reward is called"),
    ],
)
def test_mistakes_are_reported_before_anything_is_sampled(words: list[str], expected: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = ["--prompt", "a blue square", "--prompt", "a green circle", "--out", str(out)]
    assert expected in here("search", *words, *given, code=2).stderr
    assert "no prompts" in here("search", "--objective", "warmth", "--out", str(out), code=2).stderr
    assert not out.exists()
