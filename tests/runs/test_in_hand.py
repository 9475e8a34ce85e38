"""Runs by a pipeline and an anchor in hand: known by their weights, configs, adapters and arguments."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs.small_runs import (
    PROMPTS,
    REWARD,
    grown,
    images,
    quiet,
    recipe_of,
)
from tests.zoo import ZOO, anchor_of

from deradiff.errors import ConfigError, RunFolderError
from deradiff.runs.models import load_pipeline, set_scheduler
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

AXES: dict[str, Any] = {"prompts": PROMPTS, "seeds": 1, "lams": [0, 1]}


@pytest.fixture
def held() -> tuple[Any, Any]:
    """A pipeline and an anchor in hand."""
    pipe: Any = ZOO["sd"].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe, anchor_of(pipe.unet)


def by_hand(folder: Path, held: tuple[Any, Any], **changes: Any) -> Run:
    given: dict[str, Any] = {"recipe": Recipe(steps=2, batch_size=3), **changes}
    return Run(folder, pipe=held[0], aligned=held[1], **given)


def of_the_vae(held: tuple[Any, Any]) -> None:
    next(held[0].vae.parameters()).data.add_(0.1)


def of_the_unet(held: tuple[Any, Any]) -> None:
    next(held[0].unet.parameters()).data.add_(0.1)


def of_the_text_encoder(held: tuple[Any, Any]) -> None:
    next(held[0].text_encoder.parameters()).data.add_(0.1)


def of_the_anchor(held: tuple[Any, Any]) -> None:
    next(held[1].parameters()).data.add_(0.1)


def of_the_scheduler(held: tuple[Any, Any]) -> None:
    held[0].scheduler = type(held[0].scheduler).from_config(held[0].scheduler.config, beta_end=0.5)


def another_scheduler(held: tuple[Any, Any]) -> None:
    set_scheduler(held[0], "EulerDiscreteScheduler")


def in_half_precision(held: tuple[Any, Any]) -> None:
    held[0].to(torch.float16)


CHANGED = [of_the_vae, of_the_unet, of_the_text_encoder, of_the_scheduler, another_scheduler, in_half_precision]


@pytest.mark.parametrize("change", [*CHANGED, of_the_anchor])
def test_other_objects_in_hand_are_another_recipe(
    tmp_path: Path, held: tuple[Any, Any], change: Callable[[tuple[Any, Any]], None]
) -> None:
    run = by_hand(tmp_path, held)
    run.sample(["one"], 1, [0], progress=quiet)
    assert by_hand(tmp_path, held).recipe == run.recipe
    assert by_hand(tmp_path, copy.deepcopy(held)).recipe == run.recipe
    change(held)
    with pytest.raises(RunFolderError, match=f"the {'anchor' if change is of_the_anchor else 'model'} was"):
        by_hand(tmp_path, held)


def test_a_lora_of_another_strength_is_another_recipe(tmp_path: Path) -> None:
    pipe: Any = ZOO["sd_with_style_lora"].build()
    anchor = anchor_of(ZOO["sd"].build().unet)  # pyright: ignore[reportAttributeAccessIssue]
    identities: list[str] = []
    for scale in (1.0, 0.5, None, 1.0):
        if scale is None:
            pipe.unet.disable_adapters()
        else:
            pipe.unet.enable_adapters()
            pipe.unet.set_adapters("style", scale)
        identities.append(Run(tmp_path, pipe=pipe, aligned=anchor).recipe.identity)
    assert identities[0] == identities[3]
    assert len(set(identities)) == 3


@pytest.mark.parametrize(
    "given",
    [
        {"negative_prompt": "x"},
        {"negative_prompt": "y"},
        {"eta": 0.5},
        {"guidance_rescale": 0.5},
    ],
    ids=str,
)
def test_more_arguments_of_the_pipeline_are_another_recipe_and_reach_it(
    tmp_path: Path, held: tuple[Any, Any], given: dict[str, Any]
) -> None:
    plain = by_hand(tmp_path / "plain", held)
    plain.sample(["one"], 1, [0], [4], progress=quiet)
    run = by_hand(tmp_path / "run", held, call_kwargs=given)
    assert run.recipe.identity != plain.recipe.identity
    run.sample(["one", "two"], 1, [0, 1], [4], progress=quiet)
    assert len(images(run.folder)) == 4
    own, other = run.results(), plain.results()
    assert own.image(0, 0, 0).read_bytes() != other.image(0, 0, 0).read_bytes()
    with pytest.raises(RunFolderError, match="the model was"):
        by_hand(run.folder, held)


def picture(mode: str, width: int, height: int) -> Image.Image:
    return Image.frombytes(mode, (width, height), bytes(range(width * height * len(mode))))


LINE = torch.linspace(0, 1, 3000)
DIFFERENT: list[tuple[Any, Any]] = [
    (picture("L", 4, 2), picture("L", 2, 4)),
    (np.arange(6), np.arange(6).reshape(2, 3)),
    (np.zeros(2, np.int32), np.zeros(1, np.int64)),
    (torch.ones(4), torch.ones(2, 2)),
    (LINE, LINE.index_fill(0, torch.tensor([1500]), 9)),
    ([1, 23], [12, 3]),
    ([1.0], (1.0, 2.0)),
    ({"scale": LINE}, {"scale": LINE.index_fill(0, torch.tensor([1500]), 9)}),
    ("1", 1),
    (None, 0),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_arguments_that_differ_are_distinguished_and_equal_ones_are_not(
    tmp_path: Path, held: tuple[Any, Any], one: Any, other: Any
) -> None:
    first, second, third = (
        by_hand(tmp_path, held, call_kwargs={"cross_attention_kwargs": value}).recipe.identity
        for value in (one, other, copy.deepcopy(one))
    )
    assert first != second
    assert first == third


def test_objects_in_hand_sample_what_models_on_disk_do(tmp_path: Path, models: tuple[str, str]) -> None:
    recipe = recipe_of(models)
    on_disk = grown(tmp_path / "disk", recipe, **AXES).results()
    pipe = load_pipeline(models[0])
    held = (pipe, load_pipeline(models[1]).unet)
    in_hand = by_hand(tmp_path / "hand", held, recipe=Recipe(**recipe.model_dump(exclude={"model", "anchor"})))
    in_hand.sample(**AXES, progress=quiet)
    own = in_hand.results()
    for place in np.ndindex(own.shape):
        assert own.image(*place).read_bytes() == on_disk.image(*place).read_bytes()


def test_a_run_by_objects_in_hand_can_be_read_scored_and_grown_later(tmp_path: Path, models: tuple[str, str]) -> None:
    pipe = load_pipeline(models[0])
    of_the_vae((pipe, None))
    anchor = load_pipeline(models[1]).unet
    first = by_hand(tmp_path, (pipe, anchor))
    first.sample(**AXES, progress=quiet)
    run = Run(tmp_path)  # by its folder alone
    assert run.is_complete()
    assert run.recipe.identity == first.recipe.identity
    run.score(REWARD, progress=quiet)
    assert run.results().scores.keys() == {REWARD}
    again = Run(tmp_path, pipe=pipe, aligned=anchor)  # takes the run's recipe
    assert again.recipe.steps == 2
    again.sample(lams=[0.5], progress=quiet)
    assert len(images(tmp_path)) == 6


def test_the_same_pipeline_loaded_from_elsewhere_is_the_same(tmp_path: Path, models: tuple[str, str]) -> None:
    moved = shutil.copytree(models[0], tmp_path / "moved")
    first, second = (load_pipeline(str(model)) for model in (models[0], moved))
    runs = [by_hand(tmp_path / "run", (pipe, models[1])) for pipe in (first, second)]
    assert runs[0].recipe.identity == runs[1].recipe.identity


def test_an_anchor_may_be_whatever_realign_takes(tmp_path: Path, models: tuple[str, str]) -> None:
    pipe, anchor = load_pipeline(models[0]), load_pipeline(models[1])
    given = {"network": anchor.unet, "mapping": {"unet": anchor.unet}, "text": models[1], "path": Path(models[1])}
    made = {}
    for name, aligned in given.items():
        run = by_hand(tmp_path / name, (pipe, aligned))
        run.sample(["one"], 1, [1], progress=quiet)
        (made[name],) = [path.read_bytes() for path in (run.folder / "images").rglob("*.png")]
        assert by_hand(tmp_path / name, (pipe, aligned)).is_complete()
    assert len(set(made.values())) == 1


def test_a_lora_that_is_loaded_can_be_the_anchor(tmp_path: Path) -> None:
    pipe: Any = ZOO["sd_with_style_lora"].build()
    pipe.set_progress_bar_config(disable=True)
    run = Run(tmp_path, Recipe(steps=2), pipe=pipe, aligned="style")
    run.sample(["one"], 1, [0, 1], progress=quiet)
    results = run.results()
    assert results.image(0, 0, 0).read_bytes() != results.image(0, 0, 1).read_bytes()
    assert Run(tmp_path, pipe=pipe, aligned="style").is_complete()


def test_a_pipeline_without_an_anchor_is_reported(tmp_path: Path, held: tuple[Any, Any]) -> None:
    for given in ({"pipe": held[0]}, {"aligned": held[1]}):
        with pytest.raises(ConfigError, match="pipe and aligned go together"):
            Run(tmp_path, **given)


def test_an_argument_the_pipeline_does_not_take_is_reported(tmp_path: Path, held: tuple[Any, Any]) -> None:
    run = by_hand(tmp_path, held, call_kwargs={"softness": 3})
    with pytest.raises(ConfigError, match="takes no softness"):
        run.sample(["one"], 1, [0], progress=quiet)
    assert images(tmp_path) == {}
