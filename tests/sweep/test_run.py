"""Runs on a tiny random pipeline with a full anchor on disk; a reward that is a law of the pixels."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.zoo import ZOO, anchor_of
from torch import Tensor

from deradiff.errors import DeradiffError, PlanError, RewardError
from deradiff.realignment import realign
from deradiff.sweep import Journal, Plan
from deradiff.sweep.models import call, load_pipeline, set_scheduler
from deradiff.sweep.path import PathKL
from deradiff.sweep.run import run, score


def brightness(pixels: Tensor, prompts: list[str]) -> Tensor:
    assert len(pixels) == len(prompts)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    return pixels.mean((1, 2, 3))


def too_few(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3))[1:]


def not_finite(pixels: Tensor, prompts: list[str]) -> Tensor:
    return pixels.mean((1, 2, 3)) * torch.nan


def nothing(pixels: Tensor, prompts: list[str]) -> None:
    return None


REWARD = f"{__name__}:brightness"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model and an anchor, saved as a stranger would find them."""
    pipe, root = ZOO["sd"].build(), tmp_path_factory.mktemp("models")
    pipe.save_pretrained(root / "model")
    reference, pipe.unet = pipe.unet, anchor_of(pipe.unet)
    pipe.save_pretrained(root / "anchor")
    pipe.unet = reference
    return str(root / "model"), str(root / "anchor")


@pytest.fixture
def plan(folders: tuple[str, str]) -> Plan:
    return make_plan(folders)


def make_plan(folders: tuple[str, str], **changes: Any) -> Plan:
    given = {
        "model": folders[0],
        "anchor": folders[1],
        "prompts": ["a red circle", "a blue square"],
        "seeds": [0, 1],
        "lams": [0, 0.5, 1],
        "steps": 2,
        "batch_size": 3,
        "scheduler": "EulerAncestralDiscreteScheduler",
    }
    return Plan.of(**{**given, **changes})


def finished(folder: Path, plan: Plan) -> Journal:
    journal = Journal(folder, plan)
    run(journal, load_pipeline(plan.model), plan.anchor)
    return journal


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_holds_every_image_and_its_ends_are_the_plain_pipelines(tmp_path: Path, plan: Plan) -> None:
    results = finished(tmp_path, plan).results()
    assert results.images.shape == (2, 2, 3)
    for lam, model in ((0, plan.model), (2, plan.anchor)):
        pipe = load_pipeline(model)
        set_scheduler(pipe, plan.scheduler)
        plain = call(pipe, plan, ["a red circle", "a red circle", "a blue square"], [0, 1, 0])
        made = [Image.open(results.image(p, s, lam)) for p, s in ((0, 0), (0, 1), (1, 0))]
        for own, other in zip(made, plain, strict=True):
            assert np.array_equal(np.asarray(own), np.asarray(other))


def test_path_kl_is_zero_at_the_reference_and_grows(tmp_path: Path, plan: Plan) -> None:
    path_kl = finished(tmp_path, plan).results().path_kl
    assert path_kl is not None
    assert (path_kl[..., 0] == 0).all()
    assert (np.diff(path_kl, axis=-1) > 0).all()


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_path_kl_is_quadratic_in_lam_near_the_reference(
    folders: tuple[str, str], scheduler: str, guidance: float
) -> None:
    plan = make_plan(folders, scheduler=scheduler, guidance=guidance)
    pipe = load_pipeline(plan.model)
    set_scheduler(pipe, scheduler)
    values = []
    with realign(pipe, plan.anchor, 0.001) as handle:
        for lam in (0.001, 0.002):
            handle.lam = lam
            with handle.observing(path := PathKL(pipe, 2)):
                call(pipe, plan, ["a", "b"], [0, 1])
            values.append(torch.tensor(path.values(), dtype=torch.float64))
    torch.testing.assert_close(values[1], 4 * values[0], rtol=0.02, atol=0)


def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, plan: Plan) -> None:
    whole = finished(tmp_path / "whole", plan)
    score(whole, REWARD)
    cut = finished(tmp_path / "cut", plan)
    lines = cut.path.read_text().splitlines(keepends=True)
    cut.path.write_text("".join(lines[:4]) + lines[4][:10])  # killed while writing the fifth record
    next((tmp_path / "cut" / "images").glob("*.png")).unlink()
    again = finished(tmp_path / "cut", plan)
    score(again, REWARD)
    assert contents(tmp_path / "cut" / "images") == contents(tmp_path / "whole" / "images")
    resumed, undisturbed = again.results(), whole.results()
    assert np.array_equal(resumed.scores[REWARD], undisturbed.scores[REWARD])
    assert np.array_equal(resumed.path_kl, undisturbed.path_kl)  # pyright: ignore[reportArgumentType]


def test_nothing_is_sampled_or_scored_twice(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    score(journal, REWARD)
    before = journal.path.read_bytes()
    run(journal, load_pipeline(plan.model), plan.anchor)
    score(journal, REWARD)
    assert journal.path.read_bytes() == before


def test_scores_are_of_the_image_they_are_filed_under(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    score(journal, REWARD)
    results = journal.results()
    for cell in plan.cells():
        pixels = np.asarray(Image.open(results.image(*cell)).convert("RGB")) / 255
        assert results.scores[REWARD][cell] == pytest.approx(pixels.mean(), abs=1e-6)


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path, folders: tuple[str, str], plan: Plan) -> None:
    with Journal(tmp_path, plan).writing():
        pass
    with pytest.raises(PlanError, match="steps was 2, now 3"):
        Journal(tmp_path, make_plan(folders, steps=3))
    with pytest.raises(PlanError, match="no run folder"):
        Journal.open(tmp_path / "elsewhere")


def test_an_unfinished_run_says_how_much_is_missing(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(PlanError, match="lacks 12 of 12"):
        Journal(tmp_path, plan).results()


@pytest.mark.parametrize(
    ("reward", "word"),
    [
        ("nonsense", "choose from"),
        ("no.such:thing", "can't be imported"),
        (f"{__name__}:REWARD", "expected a function"),
        (f"{__name__}:too_few", "a finite number each"),
        (f"{__name__}:not_finite", "a finite number each"),
        (f"{__name__}:nothing", "one number per image"),
    ],
)
def test_bad_rewards_are_refused(tmp_path: Path, plan: Plan, reward: str, word: str) -> None:
    with pytest.raises(RewardError, match=word):
        score(finished(tmp_path, plan), reward)


def test_the_pipeline_is_left_as_it_was(tmp_path: Path, plan: Plan) -> None:
    pipe = load_pipeline(plan.model)
    before = (type(pipe), type(pipe.unet), pipe.scheduler)
    run(Journal(tmp_path, plan), pipe, plan.anchor)
    assert (type(pipe), type(pipe.unet), pipe.scheduler) == before


@pytest.mark.parametrize(
    ("change", "word"), [({"scheduler": "NoSuch"}, "choose from"), ({"model": "no/such-model"}, "can't be loaded")]
)
def test_what_cannot_be_run_is_told(
    tmp_path: Path, folders: tuple[str, str], change: dict[str, Any], word: str
) -> None:
    with pytest.raises(PlanError, match=word):
        finished(tmp_path, make_plan(folders, **change))


def test_a_folder_is_not_claimed_by_a_plan_that_cannot_start(
    tmp_path: Path, folders: tuple[str, str], plan: Plan
) -> None:
    for change in ({"anchor": str(tmp_path / "nowhere")}, {"scheduler": "NoSuch"}):
        with pytest.raises(DeradiffError):
            finished(tmp_path / "run", make_plan(folders, **change))
    assert not (tmp_path / "run").exists()
    finished(tmp_path / "run", plan)


def test_a_truncated_image_is_made_again(tmp_path: Path, plan: Plan) -> None:
    finished(tmp_path, plan)
    whole = contents(tmp_path / "images")
    broken = next((tmp_path / "images").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    finished(tmp_path, plan)
    assert contents(tmp_path / "images") == whole


def test_two_processes_cannot_write_to_one_folder(tmp_path: Path, plan: Plan) -> None:
    lock = repr(str(tmp_path / ".lock"))
    code = f"from filelock import FileLock; own = FileLock({lock}); own.acquire(); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PlanError, match="another process"):
            finished(tmp_path, plan)
        other.communicate("\n")
    finished(tmp_path, plan)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": 3}'])
def test_a_damaged_plan_is_told(tmp_path: Path, plan: Plan, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanError, match="plan"):
        Journal(tmp_path, plan)


def test_a_damaged_or_orphaned_journal_is_told(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join([lines[0], '{"kind": "ima\n', *lines[2:]]))
    with pytest.raises(PlanError, match="line 2"):
        journal.results()
    (tmp_path / "plan.json").unlink()
    with pytest.raises(PlanError, match=r"no plan\.json"):
        Journal(tmp_path, plan)


def test_a_file_is_no_run_folder(tmp_path: Path, plan: Plan) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(PlanError, match="is a file"):
            Journal(folder, plan)


def test_a_full_disk_is_told_and_the_run_goes_on_from_there(tmp_path: Path, plan: Plan) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from deradiff.sweep import Journal, Plan
from deradiff.sweep.models import load_pipeline
from deradiff.sweep.run import run
plan = Plan.model_validate_json({plan.model_dump_json()!r})
pipe = load_pipeline(plan.model)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the journal outgrows it after some batches
run(Journal(Path({str(tmp_path / "run")!r}), plan), pipe, plan.anchor)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "PlanError: can't write to" in done.stderr
    whole, resumed = finished(tmp_path / "whole", plan), finished(tmp_path / "run", plan)
    assert contents(tmp_path / "run" / "images") == contents(tmp_path / "whole" / "images")
    assert np.array_equal(resumed.results().path_kl, whole.results().path_kl)  # pyright: ignore[reportArgumentType]


class Recorder:
    """A pipeline that draws nothing and keeps its generators."""

    def __call__(self, prompt: list[str], generator: list[torch.Generator], num_inference_steps: int) -> Any:
        self.seeds = [own.initial_seed() for own in generator]
        return SimpleNamespace(images=[Image.new("RGB", (8, 8)) for _ in prompt])


def test_one_seed_is_other_noise_for_another_prompt_and_the_same_in_any_batch(plan: Plan) -> None:
    pipe = Recorder()
    call(pipe, plan, ["a", "b", "a"], [0, 0, 1])
    together = pipe.seeds
    assert len(set(together)) == 3
    call(pipe, plan, ["b"], [0])
    assert pipe.seeds == together[1:2]


def test_a_run_can_be_read_while_its_last_record_is_torn(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    whole = journal.results()
    with journal.path.open("a") as file:
        file.write('{"kind": "sco')
    assert np.array_equal(Journal.open(tmp_path).results().images, whole.images)
