"""Recipes: what is refused, and which settings make another one."""

from typing import Any

import pytest

from deradiff.errors import ConfigError, RunFolderError
from deradiff.runs.recipe import Recipe, check_same_recipe

GIVEN: dict[str, Any] = {"model": "m", "anchor": "a", "model_hash": "1", "anchor_hash": "2"}
OTHERS: dict[str, Any] = {
    "ensemble": "batched",
    "component": "unet",
    "scheduler": "DDIMScheduler",
    "steps": 3,
    "height": 64,
    "width": 64,
    "dtype": "float16",
    "batch_size": 2,
    "policy": "reuse",
    "refresh": 2,
    "target_error": 0.1,
    "particles": 2,
}
LOCATIONS: dict[str, Any] = {
    "model_subfolder": "sub",
    "model_revision": "v2",
    "model_variant": "fp16",
    "anchor_subfolder": "sub",
    "anchor_revision": "v2",
    "anchor_variant": "fp16",
    "anchor_weight_name": "a.safetensors",
}
NEEDED: dict[str, dict[str, Any]] = {
    "height": {"width": 64},
    "width": {"height": 64},
    "refresh": {"policy": "reuse"},
    "target_error": {"policy": "adaptive"},
}


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{**GIVEN, **changes})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"anchor": "a\0b"}, "no null character"),
        ({"steps": 0}, "^steps is 0; expected 1 or more$"),
        ({"batch_size": 0}, "batch_size"),
        ({"height": 60, "width": 64}, "height"),
        ({"height": 64}, "height and width go together"),
        ({"width": 64}, "height and width go together"),
        ({"anchor_beta": -1}, "anchor_beta"),
        ({"anchor_beta": float("inf")}, "anchor_beta"),
        ({"dtype": "float8"}, "float16"),
        ({"policy": "fast"}, "adaptive"),
        ({"refresh": 2}, "refresh is 2: it belongs to policy='reuse'"),
        ({"refresh": 0, "policy": "reuse"}, "refresh"),
        ({"target_error": 0.1}, "target_error is .*: it belongs to policy='adaptive'"),
        ({"target_error": 0.01, "policy": "reuse"}, "target_error is .*: it belongs to policy='adaptive'"),
        ({"target_error": 1, "policy": "adaptive"}, "target_error"),
        ({"particles": 0}, "particles"),
        ({"particles": 4, "policy": "reuse"}, "particles is 4: more than one needs both models at every step"),
        ({"particles": 4, "policy": "adaptive"}, "particles is 4: more than one needs both models at every step"),
        ({"particles": 4, "policy": "weights"}, "particles is 4: more than one needs both models at every step"),
        ({"stepps": 2}, "Recipe has no setting 'stepps'; did you mean steps"),
        ({"zzz": 2}, "choose from model, anchor, "),
        ({"model_subfolder": ""}, "model_subfolder"),
        ({"anchor_subfolder": "../up"}, "anchor_subfolder is '../up': expected a path inside"),
        ({"anchor_weight_name": "a", "anchor_variant": "fp16"}, "anchor_variant chooses among several; give one"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        recipe(**change)


def test_a_recipe_is_what_it_holds() -> None:
    own = recipe(anchor_beta=2, particles=3)
    assert Recipe.model_validate_json(own.model_dump_json()) == own
    assert Recipe.model_validate_json(own.model_dump_json()).identity == own.identity


def test_every_setting_but_names_and_records_is_another_recipe_and_is_named() -> None:
    same = {"model": "b", "anchor": "b", "anchor_beta": 3, "diagnostics": False, **LOCATIONS}
    assert {*OTHERS, *GIVEN, *same} == set(Recipe.model_fields)
    for name, value in OTHERS.items():
        needed = NEEDED.get(name, {})
        old = recipe() if name in ("height", "width") else recipe(**needed)
        with pytest.raises(RunFolderError, match=rf"folder holds a run of another recipe .*{name} was .*, now {value}"):
            check_same_recipe("folder", old, recipe(**{name: value}, **needed))
    for what in ("model", "anchor"):
        with pytest.raises(RunFolderError, match=f"the {what} was {what[0]}, now other.* with other weights"):
            check_same_recipe("folder", recipe(), recipe(**{what: "other", f"{what}_hash": "9"}))
    for left_out in ("anchor_variant", "anchor_weight_name"):  # they exclude each other
        check_same_recipe("folder", recipe(), recipe(**{**same, left_out: None}))


def test_a_model_without_a_hash_is_known_by_its_name() -> None:
    unknown = recipe(model_hash=None)
    check_same_recipe("folder", unknown, unknown)
    with pytest.raises(RunFolderError, match="the model was m, now b"):
        check_same_recipe("folder", unknown, recipe(model="b", model_hash=None))
    for name, value in LOCATIONS.items():
        old = recipe(model_hash=None, anchor_hash=None)
        part, _, what = name.partition("_")
        with pytest.raises(RunFolderError, match=rf"the {part} was {part[0]}, now {part[0]} \({what} {value}\)"):
            check_same_recipe("folder", old, recipe(model_hash=None, anchor_hash=None, **{name: value}))


def test_a_recipe_without_locations_is_what_it_was_before_there_were_any() -> None:
    """The keys of all images that are there hang on it."""
    assert recipe().identity == (
        '{"anchor_hash": "2", "batch_size": 8, "component": null, "dtype": "float32", "height": null, '
        '"model_hash": "1", "particles": 1, "policy": "exact", "refresh": null, "scheduler": null, "steps": 25, '
        '"target_error": null, "width": null}'
    )


def test_particles_correct_between_the_ends_and_take_places_of_images() -> None:
    own = recipe(particles=3, batch_size=7)
    assert [lam for lam in (-1, 0, 0.5, 1, 2) if own.needs_particles(lam)] == [0.5]
    assert (own.block_size(0.5), own.block_size(1)) == (2, 7)
    assert recipe(particles=9, batch_size=7).block_size(0.5) == 1
    assert recipe(batch_size=7).block_size(0.5) == 7
