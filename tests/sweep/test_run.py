"""Runs on a tiny random pipeline with a full anchor on disk; what is sampled, scored and found again."""

import json
import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.sweep.subject import REWARD, contents, finished, make_plan

from deradiff.errors import DeradiffError, PlanError, RewardError
from deradiff.realignment import realign
from deradiff.sampling import noise_seed
from deradiff.sweep import Cell, Journal, Plan
from deradiff.sweep.batches import Batch
from deradiff.sweep.environment import CITATION
from deradiff.sweep.models import call, load_pipeline, set_scheduler
from deradiff.sweep.run import run
from deradiff.sweep.sample import Sampled, Sampler
from deradiff.sweep.score import score

SUBJECT = "tests.sweep.subject"


def pixels(file: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def generators(prompts: list[str], seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(noise_seed(p, s)) for p, s in zip(prompts, seeds, strict=True)]


def test_a_run_holds_every_image_and_its_ends_are_the_plain_pipelines(tmp_path: Path, plan: Plan) -> None:
    results = finished(tmp_path, plan).results()
    assert results.images.shape == (2, 2, 3)
    for lam, model in ((0, plan.model), (2, plan.anchor)):
        pipe = load_pipeline(model)
        set_scheduler(pipe, plan.scheduler)
        for prompt, text in enumerate(plan.prompts):
            plain = call(pipe, plan, [text], generators([text, text], [0, 1]), 2, None)
            for seed, image in enumerate(plain):
                # batches of another size round differently on some processors
                assert np.abs(pixels(results.image(prompt, seed, lam)) - np.asarray(image, dtype=int)).max() <= 1


@pytest.mark.parametrize("batch_size", [1, 6, 12])
def test_an_image_is_the_same_in_a_batch_of_any_size(
    tmp_path: Path, folders: tuple[str, str], plan: Plan, batch_size: int
) -> None:
    one = finished(tmp_path / "one", plan).results()
    other = finished(tmp_path / "other", make_plan(folders, batch_size=batch_size)).results()
    for place in np.ndindex(one.images.shape):
        assert np.abs(pixels(one.image(*place)) - pixels(other.image(*place))).max() <= 1  # batches round differently


def test_each_guidance_has_a_table_of_its_own(tmp_path: Path, folders: tuple[str, str]) -> None:
    journal = finished(tmp_path / "grid", make_plan(folders, guidances=[1, 4], batch_size=12))
    score(journal, REWARD)
    for guidance in (1.0, 4.0):
        alone = finished(tmp_path / f"{guidance}", make_plan(folders, guidances=[guidance], batch_size=12))
        score(alone, REWARD)
        own, other = journal.results(guidance), alone.results()
        assert [Path(image).name for image in own.images.flat] == [Path(image).name for image in other.images.flat]
        assert np.array_equal(own.scores[REWARD], other.scores[REWARD])
        assert np.array_equal(own.path_kl, other.path_kl)  # pyright: ignore[reportArgumentType]
        assert own.details["Guidance"] == f"{guidance:g}"
    for guidance in (None, 2.0):
        with pytest.raises(PlanError, match=r"guidance 1, 4, and .*; choose"):
            journal.results(guidance)


def test_path_kl_is_zero_at_the_reference_and_grows(tmp_path: Path, plan: Plan) -> None:
    path_kl = finished(tmp_path, plan).results().path_kl
    assert path_kl is not None
    assert (path_kl[..., 0] == 0).all()
    assert (np.diff(path_kl, axis=-1) > 0).all()


def test_without_diagnostics_the_images_are_the_same(tmp_path: Path, folders: tuple[str, str], plan: Plan) -> None:
    bare = finished(tmp_path / "bare", make_plan(folders, diagnostics=False))
    assert bare.results().path_kl is None
    assert contents(tmp_path / "bare" / "images") == contents(finished(tmp_path / "whole", plan).folder / "images")


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_path_kl_is_quadratic_in_lam_near_the_reference(
    folders: tuple[str, str], scheduler: str, guidance: float
) -> None:
    plan = make_plan(folders, scheduler=scheduler)
    pipe = load_pipeline(plan.model)
    set_scheduler(pipe, scheduler)
    values = []
    with realign(pipe, plan.anchor, 0.001) as handle:
        for lam in (0.001, 0.002):
            handle.lam = lam
            with handle.recording():
                call(pipe, plan, ["a", "b"], generators(["a", "b"], [0, 1]), 1, guidance)
            assert handle.paths is not None
            values.append(handle.paths.path_kl)
    torch.testing.assert_close(values[1], 4 * values[0], rtol=0.02, atol=0)


def test_shards_together_are_the_whole_run(tmp_path: Path, plan: Plan) -> None:
    whole = finished(tmp_path / "whole", plan)
    finished(tmp_path / "parts", plan, (1, 3))
    with pytest.raises(PlanError, match="lacks 9 of 12 images"):
        Journal.open(tmp_path / "parts").results()
    for shard in (2, 0):
        parts = finished(tmp_path / "parts", plan, (shard, 3))
    assert contents(tmp_path / "parts" / "images") == contents(tmp_path / "whole" / "images")
    assert np.array_equal(parts.results().path_kl, whole.results().path_kl)  # pyright: ignore[reportArgumentType]
    before = contents(tmp_path / "parts")
    finished(tmp_path / "parts", plan)  # without shards: all is there
    assert contents(tmp_path / "parts") == before


def test_progress_counts_a_shards_images_and_what_was_there(tmp_path: Path, plan: Plan) -> None:
    for _ in range(2):
        counted: list[int] = []
        run(Journal(tmp_path, plan), load_pipeline(plan.model), plan.anchor, counted.append, (1, 2))
        assert counted == [3, 3]


def test_nothing_is_sampled_or_scored_twice(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    score(journal, REWARD)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*[!k]") if path.is_file()}
    assert len(before) == 12 + 5
    finished(tmp_path, plan)
    score(journal, REWARD)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_scores_are_of_the_image_they_are_filed_under(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    score(journal, REWARD)
    results = journal.results()
    for place in np.ndindex(results.images.shape):
        assert results.scores[REWARD][place] == pytest.approx(pixels(results.image(*place)).mean() / 255, abs=1e-6)


def test_a_run_without_all_its_images_is_not_scored(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan, (0, 2))
    with pytest.raises(PlanError, match="lacks 6 of 12 images"):
        score(journal, REWARD)
    finished(tmp_path, plan, (1, 2))
    broken = Path(journal.results().images[1, 1, 2])
    Image.new("RGB", (32, 32)).save(broken)
    with pytest.raises(PlanError, match=rf"{broken.name} is missing or damaged .*--resume"):
        score(journal, REWARD)
    finished(tmp_path, plan)
    score(journal, REWARD)
    assert np.isfinite(journal.results().scores[REWARD]).all()


@pytest.mark.parametrize(
    ("reward", "word"),
    [
        ("nonsense", "choose from"),
        ("no.such:thing", "can't be imported"),
        (f"{SUBJECT}:REWARD", "expected a function"),
        (f"{SUBJECT}:too_few", "a finite number each"),
        (f"{SUBJECT}:not_finite", "a finite number each"),
        (f"{SUBJECT}:nothing", "returned a NoneType"),
    ],
)
def test_bad_rewards_are_refused(tmp_path: Path, plan: Plan, reward: str, word: str) -> None:
    with pytest.raises(RewardError, match=word):
        score(finished(tmp_path, plan), reward)


def test_the_pipeline_is_left_as_it_was(tmp_path: Path, plan: Plan) -> None:
    pipe = load_pipeline(plan.model)
    before = (type(pipe), type(pipe.unet), type(pipe.text_encoder), pipe.scheduler, pipe.vae.use_slicing)
    run(Journal(tmp_path, plan), pipe, plan.anchor)
    assert (type(pipe), type(pipe.unet), type(pipe.text_encoder), pipe.scheduler, pipe.vae.use_slicing) == before


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


def test_the_folder_says_what_made_it_and_what_to_cite(tmp_path: Path, plan: Plan) -> None:
    finished(tmp_path, plan)
    noted = json.loads((tmp_path / "environment.json").read_text())
    (here,) = noted["made_on"]
    assert here["torch"] == version("torch")
    assert here["device"] == "cpu"
    assert set(noted["model"]["files"]) == {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
    assert set(noted["anchor"]["files"]) == set(noted["model"]["files"])
    assert noted["anchor"]["files"] != noted["model"]["files"]
    facts = yaml.safe_load(Path("CITATION.cff").read_text())["preferred-citation"]
    text = (tmp_path / "CITATION.bib").read_text().replace("{", "").replace("}", "")
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in facts["authors"])
    for fact in (facts["title"], authors, facts["collection-title"], str(facts["year"]), "2601.20198"):
        assert fact in text
    assert (tmp_path / "CITATION.bib").read_text() == CITATION


def test_another_anchor_under_the_same_name_is_refused(tmp_path: Path, folders: tuple[str, str], plan: Plan) -> None:
    finished(tmp_path / "run", plan)
    weights = Path(folders[1]) / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes((Path(folders[0]) / "unet" / weights.name).read_bytes())
    try:
        with pytest.raises(PlanError, match="begun with another anchor"):
            finished(tmp_path / "run", plan)
    finally:
        weights.write_bytes(kept)
    finished(tmp_path / "run", plan)


def test_other_versions_are_told_and_noted_and_the_run_goes_on(
    tmp_path: Path, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    finished(tmp_path, plan, (0, 2))
    path = tmp_path / "environment.json"
    older = path.read_text().replace(f'"torch": "{version("torch")}"', '"torch": "2.0"')
    path.write_text(older)
    with caplog.at_level(logging.WARNING, "deradiff"):
        for _ in range(2):
            finished(tmp_path, plan, (1, 2))
    assert caplog.text.count("begun with torch 2.0, now") == 2
    assert [made["torch"] for made in json.loads(path.read_text())["made_on"]] == ["2.0", version("torch")]


class Learner(Sampler):
    """A sampler that tells what it is asked and what it is told."""

    log: ClassVar[list[Any]] = []

    def sample(self, batch: Batch, info: dict[str, Any] | None = None) -> Sampled:
        self.log.append(("sample", batch.index, info))
        return replace(super().sample(batch), info={"of": batch.index})

    def learn(self, info: dict[str, Any]) -> None:
        self.log.append(("learn", info["of"]))


def test_a_sampler_learns_every_batch_in_order_and_is_told_what_it_repeats(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deradiff.sweep.run.Sampler", Learner)
    finished(tmp_path, plan)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[:3]))
    Journal.open(tmp_path).image(Cell(0, 1, 0, 2)).unlink()  # of batch 1
    Learner.log.clear()
    finished(tmp_path, plan)
    repeated, fresh = ("sample", 1, {"of": 1}), ("sample", 3, None)
    assert Learner.log == [("learn", 0), repeated, ("learn", 1), ("learn", 2), fresh, ("learn", 3)]
    assert (tmp_path / "journal.jsonl").read_text() == "".join(lines)
