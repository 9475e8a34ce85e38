"""The run folder: what is refused, told and mended, with real faults."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.sweep.subject import REWARD, contents, finished, make_plan

from deradiff.errors import PlanError, ResultsError
from deradiff.sweep import Journal, Plan
from deradiff.sweep.score import score

JOURNAL = "journal.jsonl"


@pytest.fixture(scope="module")
def whole(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    journal = finished(tmp_path_factory.mktemp("whole"), make_plan(folders))
    score(journal, REWARD)
    return contents(journal.folder)


@pytest.fixture
def run_folder(tmp_path: Path, whole: dict[str, bytes]) -> Path:
    """A folder of a finished, scored run, to do harm to."""
    for name, content in whole.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(content)
    return tmp_path / "run"


def images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_a_torn_record_and_a_lost_image_are_made_again(run_folder: Path, plan: Plan, whole: dict[str, bytes]) -> None:
    for name in (JOURNAL, "scores.jsonl"):
        lines = (run_folder / name).read_bytes().splitlines(keepends=True)
        (run_folder / name).write_bytes(b"".join(lines[:2]) + lines[2][:10])  # killed while writing the third record
    images(run_folder)[0].unlink()
    score(finished(run_folder, plan), REWARD)
    assert contents(run_folder) == whole


@pytest.mark.parametrize("harm", [lambda b: b[:60], lambda b: b[:-9] + b"x" + b[-8:], lambda b: b""])
def test_a_damaged_image_is_made_again_and_nothing_recorded(
    run_folder: Path, plan: Plan, whole: dict[str, bytes], harm: Any
) -> None:
    broken = images(run_folder)[5]
    broken.write_bytes(harm(broken.read_bytes()))
    finished(run_folder, plan)
    assert contents(run_folder) == whole


def test_images_that_come_out_otherwise_are_recorded_anew_and_scored_anew(run_folder: Path, plan: Plan) -> None:
    """A journal written by other versions, under which the third batch came out otherwise."""
    before = Journal.open(run_folder).results()
    lines = [json.loads(line) for line in (run_folder / JOURNAL).read_text().splitlines()]
    lines[2]["sha256"][1], lines[2]["path_kl"][1] = "0" * 64, 7.0
    (run_folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal = finished(run_folder, plan)
    assert [record.edition for _, record in journal._records(run_folder / JOURNAL)] == [0, 0, 0, 0, 1]
    between = journal.results()
    assert (between.unscored, dict(between.scores)) == ({REWARD: 3}, {})
    with pytest.raises(ResultsError, match=rf"3 of 12 images have no score of {REWARD}; score the run again"):
        between.scored(REWARD)
    score(journal, REWARD)
    after = journal.results()
    assert np.array_equal(after.scores[REWARD], before.scores[REWARD])
    assert np.array_equal(after.path_kl, before.path_kl)  # pyright: ignore[reportArgumentType]
    mended = contents(run_folder)
    score(finished(run_folder, plan), REWARD)
    assert contents(run_folder) == mended


def test_a_score_of_images_that_have_changed_since_does_not_count(run_folder: Path) -> None:
    journal = Journal.open(run_folder)
    truth = journal.results().scores[REWARD]
    record = json.loads((run_folder / JOURNAL).read_text().splitlines()[1]) | {"edition": 1}
    (run_folder / "journal-0-of-2.jsonl").write_text(json.dumps(record) + "\n")
    stale = json.loads((run_folder / "scores.jsonl").read_text().splitlines()[1])
    lines = (run_folder / "scores.jsonl").read_text().splitlines()
    lines[1] = json.dumps(stale | {"scores": [9.0, 9.0, 9.0]})
    (run_folder / "scores.jsonl").write_text("\n".join(lines) + "\n")
    score(journal, REWARD)
    assert np.array_equal(journal.results().scores[REWARD], truth)


def test_a_run_can_be_read_while_its_last_record_is_torn(run_folder: Path) -> None:
    before = Journal.open(run_folder).results()
    for name in (JOURNAL, "scores.jsonl"):
        with (run_folder / name).open("a") as file:
            file.write('{"kind": "sco')
    after = Journal.open(run_folder).results()
    assert np.array_equal(after.images, before.images)
    assert np.array_equal(after.scores[REWARD], before.scores[REWARD])


@pytest.mark.parametrize(
    ("name", "line", "word"),
    [
        (JOURNAL, '{"kind": "ba', "Invalid JSON"),
        (JOURNAL, "[]", "object"),
        (JOURNAL, '{"kind": "batch", "batch": 1}', "required"),
        (JOURNAL, '{"batch": 1, "sha256": ["a"], "path_kl": [1], "info": {}}', "batch 1 has 3 images"),
        (JOURNAL, '{"batch": 9, "sha256": ["a"], "path_kl": [1], "info": {}}', "no batch 9"),
        ("scores.jsonl", '{"kind": "batch"}', "score"),
        ("scores.jsonl", '{"batch": 1, "reward": "r", "scores": [1]}', "batch 1 has 3 images"),
        ("scores.jsonl", '{"batch": 9, "reward": "r", "scores": [1]}', "no batch 9"),
    ],
)
def test_a_damaged_record_is_told_with_its_file_and_line(
    run_folder: Path, plan: Plan, name: str, line: str, word: str
) -> None:
    first, _, *others = (run_folder / name).read_text().splitlines()
    (run_folder / name).write_text("\n".join([first, line, *others]) + "\n")
    with pytest.raises(PlanError, match=rf"{name}, line 2, is damaged \(.*{word}.*delete that line"):
        Journal.open(run_folder).results()
    (run_folder / name).write_text("\n".join([first, *others]) + "\n")  # as it says
    score(finished(run_folder, plan), REWARD)
    assert np.isfinite(Journal.open(run_folder).results().scores[REWARD]).all()


def test_a_lost_image_is_told_to_who_reads(run_folder: Path) -> None:
    images(run_folder)[3].unlink()
    with pytest.raises(PlanError, match="lacks 1 of 12 images"):
        Journal.open(run_folder).results()


def test_another_plan_in_the_same_folder_is_refused(run_folder: Path, folders: tuple[str, str]) -> None:
    other = make_plan(folders, steps=3, prompts=["x" * 9999])
    with pytest.raises(PlanError, match=r"prompts was .* now .*; steps was 2, now 3") as told:
        Journal(run_folder, other)
    assert len(str(told.value)) < 500
    with pytest.raises(PlanError, match="no run folder"):
        Journal.open(run_folder / "elsewhere")


def test_a_plan_that_came_there_meanwhile_is_refused(tmp_path: Path, folders: tuple[str, str], plan: Plan) -> None:
    late = Journal(tmp_path, make_plan(folders, steps=3))
    with Journal(tmp_path, plan).writing((0, 2)):
        pass
    with pytest.raises(PlanError, match="steps was 2, now 3"), late.writing((1, 2)):
        pass


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": 3}'])
def test_a_damaged_plan_is_told(tmp_path: Path, plan: Plan, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanError, match="plan"):
        Journal(tmp_path, plan)


@pytest.mark.parametrize("name", [JOURNAL, "journal-1-of-2.jsonl"])
def test_an_orphaned_journal_is_told(run_folder: Path, plan: Plan, name: str) -> None:
    (run_folder / "plan.json").unlink()
    (run_folder / JOURNAL).rename(run_folder / name)
    with pytest.raises(PlanError, match=r"no plan\.json"):
        Journal(run_folder, plan)


def test_a_file_is_no_run_folder(tmp_path: Path, plan: Plan) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(PlanError, match="is a file"):
            Journal(folder, plan)


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[None]:
    """A lock in the hands of another process."""
    code = f"from filelock import FileLock; own = FileLock({str(lock)!r}).acquire(); print('held', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.communicate("\n")


@pytest.mark.parametrize(
    ("theirs", "mine", "refused"),
    [
        (".journal.lock", (0, 1), True),
        (".journal.lock", (0, 2), True),
        (".journal-0-of-2.lock", (0, 2), True),
        (".journal-0-of-2.lock", (0, 1), True),
        (".journal-0-of-2.lock", (0, 3), True),
        (".journal-0-of-2.lock", (1, 2), False),
        (".scores.lock", (0, 1), False),
    ],
)
def test_two_processes_never_sample_the_same_batches(
    run_folder: Path, theirs: str, mine: tuple[int, int], refused: bool
) -> None:
    telling = pytest.raises(PlanError, match="another process") if refused else nullcontext()
    with held_elsewhere(run_folder / theirs), telling, Journal.open(run_folder).writing(mine):
        pass
    with Journal.open(run_folder).writing(mine):
        pass


def test_two_processes_never_score_one_run_at_once(run_folder: Path) -> None:
    journal = Journal.open(run_folder)
    with journal.scoring(), pytest.raises(PlanError, match="another process"), journal.scoring():
        pass


def test_what_a_killed_process_left_half_written_is_thrown_away(
    run_folder: Path, plan: Plan, whole: dict[str, bytes]
) -> None:
    (run_folder / ".journal.parts").mkdir()
    (run_folder / ".journal.parts" / images(run_folder)[0].name).write_bytes(b"\x89PNG")
    finished(run_folder, plan)
    assert contents(run_folder) == whole


def test_a_full_disk_is_told_and_the_run_goes_on_from_there(tmp_path: Path, folders: tuple[str, str]) -> None:
    plan = make_plan(folders, seeds=range(12), steps=1)
    whole = contents(finished(tmp_path / "whole", plan).folder)
    largest = max(len(content) for name, content in whole.items() if name.endswith(".png"))
    limits = [10, largest - 1, len(whole[JOURNAL]) // 2]  # too little for the plan, for an image, for the journal
    assert len(whole["plan.json"]) < limits[1] < limits[2]
    code = f"""
import resource, signal
from pathlib import Path
from deradiff.sweep import Plan
from tests.sweep.subject import finished
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
plan = Plan.model_validate_json({plan.model_dump_json()!r})
for limit in {limits}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        finished(Path({str(tmp_path / "run")!r}), plan)
    except Exception as error:
        print(type(error).__name__, error)
"""
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.startswith("PlanError can't write to") for line in told] == [True] * 3
    for path in images(tmp_path / "run"):
        Image.open(path).load()
    finished(tmp_path / "run", plan)
    assert contents(tmp_path / "run") == whole
