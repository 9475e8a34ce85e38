"""A run from Python: what it holds, what it is asked for, and what it leaves behind."""

import json
import logging
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.runs.small_runs import (
    PROMPTS,
    REWARD,
    assert_same,
    contents,
    finished,
    grown,
    images,
    pipeline,
    quiet,
    recipe_of,
    sample,
    stamps,
)
from tests.runs.test_legacy import write_legacy

import deradiff
from deradiff.errors import ConfigError, RunFolderError
from deradiff.realignment import realign
from deradiff.runs.cells import Request
from deradiff.runs.models import call, load_pipeline, set_scheduler
from deradiff.runs.provenance import CITATION
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import LAMS, SEEDS, Run
from deradiff.runs.runner import sampling
from deradiff.sampling import noise_seed

AXES: dict[str, Any] = {"prompts": PROMPTS, "seeds": 1, "lams": [0, 1]}


def pixels(file: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def generators(prompts: list[str], seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(noise_seed(p, s)) for p, s in zip(prompts, seeds, strict=True)]


# What a run holds


def test_a_run_holds_every_image_and_its_ends_are_the_plain_pipelines(tmp_path: Path, recipe: Recipe) -> None:
    results = finished(tmp_path, recipe).results()
    assert results.images.shape == (2, 2, 3)
    assert results.prompts == tuple(sorted(PROMPTS))
    for lam, model in ((0, recipe.model), (2, recipe.anchor)):
        pipe = load_pipeline(model)
        set_scheduler(pipe, recipe.scheduler)
        for prompt, text in enumerate(results.prompts):
            plain = call(pipe, recipe, [text, text], generators([text, text], [0, 1]), None)
            for seed, image in enumerate(plain):
                # batches of another size round differently on some processors
                assert np.abs(pixels(results.image(prompt, seed, lam)) - np.asarray(image, dtype=int)).max() <= 1


def test_each_guidance_has_a_table_of_its_own(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path / "grid", recipe, guidances=[1, 4])
    run.score(REWARD, progress=quiet)
    for guidance in (1.0, 4.0):
        alone = finished(tmp_path / f"{guidance}", recipe, guidances=[guidance])
        alone.score(REWARD, progress=quiet)
        assert_same(run.results(guidance), alone.results())
        assert run.results(guidance).details["Guidance"] == f"{guidance:g}"
    for guidance in (None, 2.0):
        with pytest.raises(RunFolderError, match=r"guidance 1, 4, and .*; choose"):
            run.results(guidance)


def test_path_kl_is_zero_at_the_reference_and_grows(tmp_path: Path, recipe: Recipe) -> None:
    path_kl = finished(tmp_path, recipe).results().path_kl
    assert path_kl is not None
    assert (path_kl[..., 0] == 0).all()
    assert (np.diff(path_kl, axis=-1) > 0).all()


def test_without_diagnostics_the_images_are_the_same(tmp_path: Path, models: tuple[str, str], recipe: Recipe) -> None:
    bare = finished(tmp_path / "bare", recipe_of(models, diagnostics=False))
    assert bare.results().path_kl is None
    assert images(tmp_path / "bare") == images(finished(tmp_path / "whole", recipe).folder)


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_path_kl_is_quadratic_in_lam_near_the_reference(
    models: tuple[str, str], scheduler: str, guidance: float
) -> None:
    recipe = recipe_of(models, scheduler=scheduler)
    pipe = load_pipeline(recipe.model)
    set_scheduler(pipe, scheduler)
    values = []
    with realign(pipe, recipe.anchor, 0.001) as handle:
        for lam in (0.001, 0.002):
            handle.lam = lam
            with handle.recording():
                call(pipe, recipe, ["a", "b"], generators(["a", "b"], [0, 1]), guidance)
            assert handle.paths is not None
            values.append(handle.paths.path_kl)
    torch.testing.assert_close(values[1], 4 * values[0], rtol=0.02, atol=0)


def test_nothing_is_sampled_or_scored_twice(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe)
    run.score(REWARD, progress=quiet)
    before, files = contents(tmp_path), stamps(tmp_path)
    assert len(before) == 12 + 6
    finished(tmp_path, recipe).score(REWARD, progress=quiet)
    assert contents(tmp_path) == before
    assert stamps(tmp_path) == files


def test_progress_counts_what_is_new(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe, lams=[0, 1])
    counted: list[int] = []
    sample(run, run.requests(lams=[0, 0.5, 1]), progress=counted.append)
    assert counted == [3, 1]
    sample(run, run.requests(), progress=counted.append)
    assert counted == [3, 1]


def test_a_bar_shows_progress_where_none_is_given(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path, recipe, (0, 2))
    run._pipe, run._aligned = pipeline(recipe.model), recipe.anchor
    run.sample()
    run.score(REWARD)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "sampling" in shown
    assert REWARD in shown
    assert run.is_complete()


def test_the_pipeline_is_left_as_it_was(tmp_path: Path, recipe: Recipe) -> None:
    pipe = load_pipeline(recipe.model)
    before = (type(pipe), type(pipe.unet), type(pipe.text_encoder), pipe.scheduler, pipe.vae.use_slicing)
    run = Run(tmp_path, recipe)
    with sampling(pipe, recipe.anchor, run.recipe) as sampler:
        run.sample_requests(run.requests(**AXES), sampler=sampler, progress=quiet)
    assert (type(pipe), type(pipe.unet), type(pipe.text_encoder), pipe.scheduler, pipe.vae.use_slicing) == before
    assert run.is_complete()


def test_the_name_by_which_users_know_it(tmp_path: Path, models: tuple[str, str]) -> None:
    recipe = deradiff.Recipe(model=models[0], anchor=models[1], steps=1)
    run = deradiff.Run(tmp_path / "run", recipe)
    run.sample(PROMPTS, seeds=[7], lams=[0], guidances=[2], progress=quiet)
    assert deradiff.Run(str(tmp_path / "run")).results().seeds == (7,)


# What is asked for


def test_what_is_not_given_is_the_runs(tmp_path: Path, recipe: Recipe) -> None:
    run = Run(tmp_path, recipe)

    def asked(*axes: Any) -> tuple[Any, ...]:
        (own,) = run.requests(*axes)
        return own.prompts, own.seeds, own.lams, own.guidances

    with pytest.raises(ConfigError, match="no prompts"):
        run.requests()
    with pytest.raises(ConfigError, match="no prompts"):
        run.requests(lams=[1])
    assert asked(["a"]) == (("a",), tuple(range(SEEDS)), LAMS, (None,))
    run.store.add_request(Request(prompts=["b", "a"], seeds=[3, 1], lams=[0, 1], guidances=[4]))
    assert asked(["c"]) == (("c",), (3, 1), (0, 1), (4,))
    assert asked(None, 2) == (("b", "a"), (0, 1), (0, 1), (4,))
    assert asked(None, [9]) == (("b", "a"), (9,), (0, 1), (4,))
    assert asked(None, None, [2, -1]) == (("b", "a"), (3, 1), (-1, 2), (4,))
    assert asked(None, None, None, [1, 2]) == (("b", "a"), (3, 1), (0, 1), (1, 2))
    run.store.add_request(Request(prompts=["c", "a"], seeds=[1, 0], lams=[0.5, 0], guidances=[1]))
    assert asked(None, None, [7]) == (("b", "a", "c"), (3, 1, 0), (7,), (4, 1))
    assert asked(["d"]) == (("d",), (3, 1, 0), (0, 0.5, 1), (4, 1))
    assert run.requests() == run.store.requests()
    assert len(run.requests()) == 2


@pytest.mark.parametrize(
    ("axes", "word"),
    [
        ({"prompts": []}, "prompts"),
        ({"seeds": 0}, "expected 1 seed or more"),
        ({"seeds": -1}, "expected 1 seed or more"),
        ({"seeds": []}, "seed"),
        ({"lams": []}, "lams"),
        ({"guidances": []}, "guidances"),
        ({"lams": [float("nan")]}, "finite"),
        ({"prompts": ["a", "a"]}, "twice"),
        ({"prompts": "cat"}, "prompts"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_reported(tmp_path: Path, recipe: Recipe, axes: dict[str, Any], word: str) -> None:
    run = Run(tmp_path, recipe)
    with pytest.raises(ConfigError, match=word):
        run.requests(**{"prompts": ["one"], **axes})


def test_an_image_is_asked_for_once(tmp_path: Path, recipe: Recipe) -> None:
    run = grown(tmp_path, recipe, **AXES)
    again: list[dict[str, Any]] = [{}, AXES, {"lams": [0, 1]}]
    for axes in again:
        grown(tmp_path, recipe, **axes)
    assert run.store.requests() == run.requests(**AXES)


def test_what_was_stopped_goes_on_without_being_asked_again(tmp_path: Path, recipe: Recipe) -> None:
    grown(tmp_path, recipe, (0, 2), **{**AXES, "seeds": 3})
    run = Run(tmp_path)
    assert not run.is_complete()
    assert run.is_complete(shard=(0, 2))
    assert not run.is_complete(shard=(1, 2))
    run = grown(tmp_path, recipe)
    assert run.is_complete()
    assert len(images(tmp_path)) == 12
    assert not run.is_complete(run.requests(lams=[3]))


def test_a_shard_without_images_says_what_was_asked_for(tmp_path: Path, recipe: Recipe) -> None:
    """More shards than blocks: the others, and whoever finishes the run, find it."""
    run = Run(tmp_path / "run", recipe)
    sample(run, run.requests(["one"], 1, [0, 1]), shard=(3, 4))
    assert images(tmp_path / "run") == {}
    assert Run(tmp_path / "run").requests() == run.requests(["one"], 1, [0, 1])
    with pytest.raises(RunFolderError, match="steps was 2, now 3"):
        Run(tmp_path / "run", recipe.model_copy(update={"steps": 3}))
    assert len(images(grown(tmp_path / "run", recipe).folder)) == 2


def test_a_run_of_version_0_1_is_read_and_not_begun_anew(tmp_path: Path) -> None:
    write_legacy(tmp_path / "old")
    with pytest.raises(RunFolderError, match="steps was 5, now 3"):
        Run(tmp_path / "old", Recipe(model="m", anchor="a", steps=3, batch_size=3))
    run = Run(tmp_path / "old", Recipe(model="m", anchor="a", steps=5, batch_size=3))
    assert run.results().shape == (3, 2, 3)
    assert run.is_complete()


def test_nothing_is_loaded_where_nothing_is_missing(tmp_path: Path, models: tuple[str, str]) -> None:
    moved = [str(shutil.copytree(own, tmp_path / Path(own).name)) for own in models]
    recipe = recipe_of((moved[0], moved[1]))
    grown(tmp_path / "run", recipe, **AXES)
    for own in moved:
        shutil.rmtree(own)  # whoever looks at a run need not have its models
    run = Run(tmp_path / "run")
    run.sample(progress=quiet)
    run.sample(PROMPTS[:1], 1, [1], progress=quiet)
    assert len(run.store.requests()) == 2
    assert run.results().missing == 0
    with pytest.raises(ConfigError, match="no folder or file on this machine"):
        run.sample(lams=[2], progress=quiet)


def test_looking_at_a_run_imports_no_torch(tmp_path: Path, recipe: Recipe) -> None:
    grown(tmp_path, recipe, **AXES).score(REWARD, progress=quiet)
    code = f"""
import sys
import deradiff
run = deradiff.Run({str(tmp_path)!r})
assert run.is_complete()
assert run.cost().missing == 0
assert run.results().scores
run.sample(progress=print)
heavy = sorted({{"torch", "diffusers", "transformers", "peft", "PIL"}} & set(sys.modules))
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# What it leaves behind


def test_the_folder_says_what_made_it_and_what_to_cite(tmp_path: Path, recipe: Recipe) -> None:
    grown(tmp_path, recipe, **AXES)
    (here,) = json.loads((tmp_path / "environment.json").read_text())["made_on"]
    assert here["torch"] == version("torch")
    assert here["device"] == "cpu"
    facts = yaml.safe_load(Path("CITATION.cff").read_text())["preferred-citation"]
    text = (tmp_path / "CITATION.bib").read_text().replace("{", "").replace("}", "")
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in facts["authors"])
    for fact in (facts["title"], authors, facts["collection-title"], str(facts["year"]), "2601.20198"):
        assert fact in text
    assert (tmp_path / "CITATION.bib").read_text() == CITATION


def test_other_versions_are_reported_and_noted_and_the_run_goes_on(
    tmp_path: Path, recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    grown(tmp_path, recipe, **AXES)
    path = tmp_path / "environment.json"
    path.write_text(path.read_text().replace(f'"torch": "{version("torch")}"', '"torch": "2.0"'))
    with caplog.at_level(logging.WARNING, "deradiff"):
        for lam in (0.5, 2):
            grown(tmp_path, recipe, lams=[lam])
    assert caplog.text.count("begun with torch 2.0, now") == 2
    assert [made["torch"] for made in json.loads(path.read_text())["made_on"]] == ["2.0", version("torch")]


@pytest.mark.parametrize("content", ["{", '{"made_on": 3}', '{"made_on": [{"torch": 2}]}'])
def test_a_damaged_note_of_versions_is_reported(tmp_path: Path, recipe: Recipe, content: str) -> None:
    grown(tmp_path, recipe, **AXES)
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"environment\.json is damaged|environment file .* is damaged"):
        grown(tmp_path, recipe, lams=[0.5])
    (tmp_path / "environment.json").unlink()  # as it says
    assert grown(tmp_path, recipe, lams=[0.5]).is_complete()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scheduler": "NoSuch"}, "choose from"),
        ({"model": "no/such-model"}, "neither on this machine nor can it be fetched"),
    ],
)
def test_what_cannot_be_run_is_reported(
    tmp_path: Path, models: tuple[str, str], change: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        Run(tmp_path / "run", recipe_of(models, **change)).sample(**AXES, progress=quiet)
    assert not (tmp_path / "run").exists()
