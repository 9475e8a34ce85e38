"""Real searches on the embedded pipeline: a stopped one goes on, and its rounds are runs like any other."""

from pathlib import Path

import optuna
import pyarrow.csv as pacsv
import pytest
from tests.cli.shell import deradiff

from deradiff import testbed
from deradiff.errors import PlanError
from deradiff.results import Results
from deradiff.search import Folder, Found, Settings, search
from deradiff.search.observed import Rectangle
from deradiff.search.rounds import Rounds
from deradiff.sweep import Journal, Plan
from deradiff.sweep.models import load_pipeline

ANCHOR = "warmth-beta0.025-seed0"
SETTINGS = Settings(objective="warmth", guard="faithfulness:-10%", interval=1e-6, images=60)
PLAN = Plan.of(
    model=str(testbed.pipeline_path()),
    anchor=str(testbed.anchor_path(ANCHOR)),
    prompts=testbed.DEMO_PROMPTS[:6],
    seeds=range(2),
    lams=SETTINGS.grid,
    steps=3,
    guidances=[1.0],
)


def find(path: Path, settings: Settings = SETTINGS, *, stop_at: int | None = None) -> tuple[Found, list[str]]:
    told: list[str] = []
    with Folder(path, PLAN).writing() as folder:
        rewards = ["warmth", "faithfulness"]
        rounds = Rounds(folder, load_pipeline(PLAN.model), PLAN.anchor, rewards, "cpu", told.append)

        def sample(number: int, own: Rectangle) -> Results:
            if number == stop_at:
                raise KeyboardInterrupt
            return rounds(number, own)

        before = [folder.rectangle(journal) for journal in folder.rounds()]
        return search(settings, len(PLAN.prompts), len(PLAN.seeds), sample, before), told


def test_a_stopped_search_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, told = find(tmp_path / "whole")
    assert whole.rounds >= 2
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path / "stopped", stop_at=2)
    first = tmp_path / "stopped" / "rounds" / "001"
    written = {path: path.stat().st_mtime_ns for path in first.rglob("*.png")}
    again, _ = find(tmp_path / "stopped")
    assert again.choice.lam == whole.choice.lam
    assert again.interval == whole.interval
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.png")} == written
    assert len(told) == whole.rounds
    journals = [Journal.open(folder) for folder in sorted((tmp_path / "whole" / "rounds").iterdir())]
    assert sum(journal.plan.count for journal in journals) == whole.images


def test_the_command_prints_its_rounds_and_the_lam_last(tmp_path: Path) -> None:
    words = ["search", "--objective", "warmth", "--guard", "faithfulness:-10%", "--anchor", f"embedded:{ANCHOR}"]
    words += [
        "--prompt",
        "a blue square",
        "--prompt",
        "a green circle",
        "--seeds",
        "1",
        "--steps",
        "2",
        "--images",
        "8",
    ]
    printed = deradiff(*words, "--out", str(tmp_path / "run")).stdout
    assert "round 1: lam 0, 0.5, 1 for 2 prompts x 1 seed, 6 images" in printed
    assert "of the 66 of a grid of 33 lams" in printed
    assert "stopped: " in printed
    assert printed.splitlines()[-1].startswith("recommended lam: ")
    changed = deradiff(*words[:-2], "--steps", "3", "--images", "8", "--out", str(tmp_path / "run"), code=2).stderr
    assert "another plan" in changed


def test_another_question_begins_with_what_is_there(tmp_path: Path) -> None:
    first, _ = find(tmp_path)
    told = find(tmp_path, Settings(objective="faithfulness", interval=1e-6, images=60))[1]
    assert len(told) >= first.rounds
    seen, _ = Folder.open(tmp_path).observed()
    assert first.observed.known[~seen.known].sum() == 0
    journals = Folder.open(tmp_path).rounds()
    assert sum(journal.plan.count for journal in journals) == seen.known.sum()  # nothing is sampled twice


def test_a_round_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    find(tmp_path)
    *_, last = Folder.open(tmp_path).rounds()
    whole, _ = Folder.open(tmp_path).observed()
    (last.folder / "journal.jsonl").write_text("")
    part, _ = Folder.open(tmp_path).observed()
    assert part.known.sum() == whole.known.sum() - last.plan.count


def test_rounds_of_another_plan_or_gone_are_told(tmp_path: Path) -> None:
    with Folder(tmp_path, PLAN.model_copy(update={"steps": 4})).writing():
        pass
    find(tmp_path)  # nothing was sampled by the other plan
    with (
        pytest.raises(PlanError, match="steps was 3, now 4"),
        Folder(tmp_path, PLAN.model_copy(update={"steps": 4})).writing(),
    ):
        pass
    with pytest.raises(PlanError, match="holds a search"):
        Journal(tmp_path, PLAN)  # a sweep into the search's folder
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(PlanError, match=r"search.json is damaged"):
        Folder.open(tmp_path)
    (tmp_path / "search.json").write_text(PLAN.model_dump_json())
    rounds = tmp_path / "rounds"
    (rounds / "001").rename(rounds / "gone")
    with pytest.raises(PlanError, match="lacks rounds/001"):
        find(tmp_path)


def test_one_comes_back_to_a_search_by_the_commands_of_a_run(tmp_path: Path) -> None:
    found, _ = find(tmp_path / "run")
    run = str(tmp_path / "run")
    printed = deradiff("recommend", run, "--objective", "warmth", "--guard", "faithfulness:-10%").stdout
    assert printed.splitlines()[-1].startswith(f"recommended lam: {found.choice.lam:g}")
    assert f"between {found.interval[0]:g} and {found.interval[1]:g} (95 %)" in printed
    unknown = deradiff("recommend", run, "--objective", "contrast", code=2).stderr
    assert "not every round" in unknown
    assert "--rewards contrast" in unknown
    deradiff("score", run, "--rewards", "contrast")
    assert "recommended lam" in deradiff("recommend", run, "--objective", "contrast").stdout
    deradiff("export", run, "--out", str(tmp_path / "all.csv"))
    rows = pacsv.read_csv(tmp_path / "all.csv").to_pylist()
    assert len(rows) == found.images
    assert all((tmp_path / "run" / row["image"]).is_file() and row["contrast"] > 0 for row in rows)
    assert {row["lam"] for row in rows} == {SETTINGS.grid[place] for place in found.observed.lams}
    for command in ("report", "reweight", "calibrate"):
        assert f"{run}/rounds/001" in deradiff(command, run, "--objective", "warmth", code=2).stderr
    assert "never has" in deradiff("score", run, "--rewards", "diversity", code=2).stderr
    deradiff("study", run, "--objective", "warmth", "--out", str(tmp_path / "s.db"))
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 's.db'}").trials
    assert [trial.params["lam"] for trial in trials] == [SETTINGS.grid[place] for place in found.observed.lams]
    assert "asked for" in deradiff("recommend", run, "--objective", "warmth", "--guidance", "7", code=2).stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--objective", "diversity"], "which a search never has"),
        (["--objective", "warmth", "--guard", "warmth"], "both 'warmth'"),
        (["--objective", "warmth", "--guidance", "1,2"], "at one guidance"),
        (["--objective", "warmth", "--images", "2"], "6 images"),
        (["--objective", "nothing"], "no reward is called"),
    ],
)
def test_mistakes_are_told_before_anything_is_sampled(words: list[str], expected: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = ["--prompt", "a blue square", "--prompt", "a green circle", "--out", str(out)]
    assert expected in deradiff("search", *words, *given, code=2).stderr
    assert not out.exists()
