"""Real searches on the embedded pipeline: a stopped one goes on, and its rounds are runs like any other."""

import sys
from pathlib import Path

import numpy as np
import optuna
import pyarrow.csv as pacsv
import pytest

from deradiff import testbed
from deradiff.analysis.criteria import Guard, make_criteria
from deradiff.cli import common, main
from deradiff.errors import PlanError
from deradiff.results import Results
from deradiff.search.acquisition import SampleBlock
from deradiff.search.folder import Folder
from deradiff.search.rounds import Rounds, to_score
from deradiff.search.search import SearchResult, known_images, search
from deradiff.search.settings import Settings
from deradiff.sweep import Journal, Plan
from deradiff.sweep.models import load_pipeline

ANCHOR = "warmth-beta0.025-seed0"
CRITERIA = make_criteria("warmth", [Guard("faithfulness", margin=0.1, relative=True)])
SETTINGS = Settings(criteria=CRITERIA, interval_width=1e-6, max_images=40)
PLAN = Plan.of(
    model=str(testbed.pipeline_path()),
    anchor=str(testbed.anchor_path(ANCHOR)),
    prompts=testbed.DEMO_PROMPTS[:6],
    seeds=range(2),
    lams=SETTINGS.grid,
    steps=3,
    guidances=[1.0],
)


class Command:
    """The command line within this process: importing all in another one takes seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        monkeypatch.setattr(common, "hush", lambda: None)  # it would last

    def __call__(self, *words: str, code: int = 0) -> str:
        """What it prints, or says of an error."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["deradiff", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = self.capsys.readouterr()
        assert stop.value.code == code, err
        return err if code else out


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Command(monkeypatch, capsys)


def find(path: Path, settings: Settings = SETTINGS, *, stop_at: int | None = None) -> tuple[SearchResult, list[str]]:
    told: list[str] = []
    with Folder(path, PLAN).writing() as folder:
        rewards = ["warmth", "faithfulness"]
        rounds = Rounds(folder, load_pipeline(PLAN.model), PLAN.anchor, rewards, "cpu", told.append)

        def sample(block: SampleBlock) -> Results:
            if len(folder.rounds()) + 1 == stop_at:
                raise KeyboardInterrupt
            return rounds(block)

        return search(settings, len(PLAN.prompts), sample, rounds.resume()), told


@pytest.mark.usefixtures("quick")
def test_a_stopped_search_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, told = find(tmp_path / "whole")
    assert len(told) >= 2
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path / "stopped", stop_at=2)
    first = tmp_path / "stopped" / "rounds" / "001"
    written = {path: path.stat().st_mtime_ns for path in first.rglob("*.png")}
    again, retold = find(tmp_path / "stopped")
    assert again.recommendation.lam == whole.recommendation.lam
    assert again.interval == whole.interval
    assert again.stopped == whole.stopped
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.png")} == written
    assert retold == told
    journals = [Journal.open(folder) for folder in sorted((tmp_path / "whole" / "rounds").iterdir())]
    assert sum(journal.plan.count for journal in journals) == whole.images <= 40


@pytest.mark.usefixtures("quick")
def test_what_a_folder_knows_is_what_its_rounds_scored_on_the_whole_grid(tmp_path: Path) -> None:
    found, _ = find(tmp_path, SETTINGS.model_copy(update={"max_images": 30}))
    folder = Folder.open(tmp_path)
    known = folder.known()
    assert known.shape == (6, 2, 33)
    np.testing.assert_array_equal(known_images(known), known_images(found.sampled))
    for journal in folder.rounds():
        block, own = folder.block(journal), journal.results()
        index = np.ix_(block.prompts, block.seeds, block.lams)
        for name, scores in own.scores.items():
            np.testing.assert_array_equal(known.scores[name][index], scores)
        assert (known.images[index] == own.images).all()
        assert own.path_kl is not None
        assert known.path_kl is not None
        np.testing.assert_array_equal(known.path_kl[index], own.path_kl)
    assert ((known.images != "") == known_images(known)).all()
    assert known.info("faithfulness") == folder.rounds()[0].results().info("faithfulness")


def test_what_is_asked_about_is_scored_beside_what_else_was_named() -> None:
    assert to_score(CRITERIA) == ["warmth", "faithfulness"]
    assert to_score(CRITERIA, ["contrast", "warmth"]) == ["contrast", "warmth", "faithfulness"]
    with pytest.raises(PlanError, match="which a search never has"):
        to_score(CRITERIA, ["diversity"])


@pytest.mark.usefixtures("quick")
def test_the_command_prints_its_rounds_and_the_lam_last(command: Command, tmp_path: Path) -> None:
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
        "--max-images",
        "8",
    ]
    printed = command(*words, "--out", str(tmp_path / "run"))
    assert "round 1: lam 0, 0.5, 1 for 2 prompts x 1 seed, 6 images" in printed
    assert "of the 66 of a grid of 33 lams" in printed
    assert "stopped: " in printed
    assert printed.splitlines()[-1].startswith("recommended lam: ")
    changed = command(*words[:-2], "--steps", "3", "--max-images", "8", "--out", str(tmp_path / "run"), code=2)
    assert "another plan" in changed


@pytest.mark.usefixtures("quick")
def test_another_question_begins_with_what_is_there(tmp_path: Path) -> None:
    first, said = find(tmp_path)
    told = find(tmp_path, Settings(criteria=make_criteria("faithfulness"), interval_width=1e-6, max_images=40))[1]
    assert told[: len(said)] == said
    known = known_images(Folder.open(tmp_path).known())
    assert known[known_images(first.sampled)].all()
    journals = Folder.open(tmp_path).rounds()
    assert sum(journal.plan.count for journal in journals) == known.sum()  # nothing is sampled twice


@pytest.mark.usefixtures("quick")
def test_a_round_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    find(tmp_path)
    *_, last = Folder.open(tmp_path).rounds()
    whole = known_images(Folder.open(tmp_path).known())
    (last.folder / "journal.jsonl").write_text("")
    part = known_images(Folder.open(tmp_path).known())
    assert part.sum() == whole.sum() - last.plan.count
    for journal in Folder.open(tmp_path).rounds():
        (journal.folder / "journal.jsonl").write_text("")
    with pytest.raises(PlanError, match="no finished round yet"):
        Folder.open(tmp_path).known()


@pytest.mark.usefixtures("quick")
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


@pytest.mark.usefixtures("quick")
def test_one_comes_back_to_a_search_by_the_commands_of_a_run(command: Command, tmp_path: Path) -> None:
    found, _ = find(tmp_path / "run")
    run = str(tmp_path / "run")
    printed = command("recommend", run, "--objective", "warmth", "--guard", "faithfulness:-10%")
    assert printed.splitlines()[-1].startswith(f"recommended lam: {found.recommendation.lam:g}")
    assert f"between {found.interval[0]:g} and {found.interval[1]:g} (95 %)" in printed
    unknown = command("recommend", run, "--objective", "contrast", code=2)
    assert "no reward 'contrast' here; there are: warmth, faithfulness" in unknown
    command("score", f"{run}/rounds/001", "--rewards", "contrast")  # not of every round
    unknown = command("recommend", run, "--objective", "contrast", code=2)
    assert f"{found.images - 18} of " in unknown
    assert "have no score of contrast" in unknown
    assert "--rewards contrast" in unknown
    command("score", run, "--rewards", "contrast")
    assert "recommended lam" in command("recommend", run, "--objective", "contrast")
    command("export", run, "--out", str(tmp_path / "all.csv"))
    rows = pacsv.read_csv(tmp_path / "all.csv").to_pylist()
    assert len(rows) == found.images
    assert all((tmp_path / "run" / row["image"]).is_file() and row["contrast"] > 0 for row in rows)
    assert {row["lam"] for row in rows} == {SETTINGS.grid[index] for index in found.sampled_lams}
    for other in ("report", "reweight", "calibrate"):
        assert f"{run}/rounds/001" in command(other, run, "--objective", "warmth", code=2)
    assert "never has" in command("score", run, "--rewards", "diversity", code=2)
    command("study", run, "--objective", "warmth", "--out", str(tmp_path / "s.db"))
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 's.db'}").trials
    assert [trial.params["lam"] for trial in trials] == [SETTINGS.grid[index] for index in found.sampled_lams]
    assert "asked for" in command("recommend", run, "--objective", "warmth", "--guidance", "7", code=2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--objective", "diversity"], "which a search never has"),
        (["--objective", "warmth", "--guard", "warmth"], "'warmth' is named twice"),
        (["--objective", "warmth", "--guidance", "1,2"], "at one guidance"),
        (["--objective", "warmth", "--max-images", "2"], "6 images"),
        (["--objective", "nothing"], "no reward is called"),
    ],
)
def test_mistakes_are_told_before_anything_is_sampled(
    command: Command, words: list[str], expected: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    given = ["--prompt", "a blue square", "--prompt", "a green circle", "--out", str(out)]
    assert expected in command("search", *words, *given, code=2)
    assert not out.exists()
