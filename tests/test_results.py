"""The table of scores: other axes keep every value where it was, and gaps are gaps."""

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deradiff.errors import ResultsError
from deradiff.results import Results, RewardInfo, as_results

PROMPTS, SEEDS, LAMS = ("b", "a", "c"), (3, 0), (0.0, 0.5, 1.0, 2.0)
SHAPE = (len(PROMPTS), len(SEEDS), len(LAMS))


def table(**changes: Any) -> Results:
    """A table whose values tell their own place."""
    places = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
    images = np.array([f"{place:g}.png" for place in places.flat], dtype=object).reshape(SHAPE)
    given: dict[str, Any] = {
        "scores": {"proxy": places, "gold": -places},
        "images": images,
        "path_kl": 10 * places,
        "paths": {"q": 100 * places},
        "rewards": {"gold": RewardInfo(direction="none")},
        "anchor_beta": 0.1,
        "missing": 5,
        "details": {"Steps": "2"},
    }
    return Results(prompts=PROMPTS, seeds=SEEDS, lams=LAMS, **{**given, **changes})


def test_other_axes_keep_every_value_at_its_prompt_seed_and_lam() -> None:
    old = table()
    prompts, seeds, lams = ["new", "a", "b"], [7, 3, 0], [0.0, 0.25, 1.0, 2.0, 3.0]
    new = old.on_axes(prompts, seeds, lams)
    assert (new.prompts, new.seeds, new.lams) == (tuple(prompts), tuple(seeds), tuple(lams))
    for place in np.ndindex(new.shape):
        values = prompts[place[0]], seeds[place[1]], lams[place[2]]
        known = all(value in axis for value, axis in zip(values, (PROMPTS, SEEDS, LAMS), strict=True))
        was = (
            tuple(axis.index(value) for value, axis in zip(values, (PROMPTS, SEEDS, LAMS), strict=True))
            if known
            else ()
        )
        assert new.images[place] == (old.images[was] if known else "")
        for name in ("proxy", "gold"):
            assert new.scores[name][place] == old.scores[name][was] if known else np.isnan(new.scores[name][place])
        for ours, theirs in ((new.path_kl, old.path_kl), (new.paths["q"], old.paths["q"])):
            assert ours is not None
            assert theirs is not None
            assert ours[place] == theirs[was] if known else np.isnan(ours[place])
    assert (new.rewards, new.anchor_beta, new.details) == (old.rewards, old.anchor_beta, old.details)


def test_there_and_back_again_is_the_same_table() -> None:
    old = table()
    again = old.on_axes(["z", *PROMPTS], [*SEEDS, 9], [-1.0, *LAMS]).on_axes(PROMPTS, SEEDS, LAMS)
    for name in ("proxy", "gold"):
        np.testing.assert_array_equal(again.scores[name], old.scores[name])
    np.testing.assert_array_equal(again.images, old.images)
    assert again.path_kl is not None
    assert old.path_kl is not None
    np.testing.assert_array_equal(again.path_kl, old.path_kl)


def test_only_the_rewards_asked_for_are_kept_and_those_scored_in_part_are_refused() -> None:
    assert set(table().on_axes(PROMPTS, SEEDS, LAMS, ["gold"]).scores) == {"gold"}
    partly = table(unscored={"hps": 3})
    assert set(partly.on_axes(PROMPTS, SEEDS, LAMS).scores) == {"proxy", "gold"}
    with pytest.raises(ResultsError, match="3 of 24 images have no score of hps"):
        partly.on_axes(PROMPTS, SEEDS, LAMS, ["hps"])
    with pytest.raises(ResultsError, match="no reward 'fame' here"):
        partly.on_axes(PROMPTS, SEEDS, LAMS, ["fame"])
    with pytest.raises(ResultsError, match="proxy: all 8 scores are nan"):
        table().on_axes(["z"], SEEDS, LAMS)


def test_a_selection_is_of_indices() -> None:
    part = table().select([2, 0], [0, 3])
    assert (part.prompts, part.seeds, part.lams, part.missing) == (("c", "b"), SEEDS, (0.0, 2.0), 5)
    np.testing.assert_array_equal(part.scores["proxy"], table().scores["proxy"][[2, 0]][:, :, [0, 3]])
    np.testing.assert_array_equal(part.images, table().images[[2, 0]][:, :, [0, 3]])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scores": {"proxy": np.zeros((3, 2, 3))}}, r"proxy: expected one value per prompt, seed and lam \(3, 2, 4\)"),
        ({"scores": {"proxy": np.full(SHAPE, np.inf)}}, "24 of 24 scores are infinite"),
        ({"scores": {"proxy": np.full(SHAPE, np.nan)}}, "all 24 scores are nan"),
        ({"scores": {"proxy": [["much"]]}}, r"proxy: expected an array of numbers \(3, 2, 4\)"),
        ({"images": np.full((1, 1, 1), "x")}, "images: expected one value per prompt"),
    ],
)
def test_a_table_that_is_none_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ResultsError, match=told):
        table(**changes)


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"lams": [0, 0, 1]}, "must ascend without repeats"),
        ({"lams": [0, float("nan")]}, "must ascend without repeats"),
        ({"prompts": []}, "no images: 0 prompts x 1 seeds x 2 lams"),
    ],
)
def test_axes_that_are_none_are_refused(axes: dict[str, Any], told: str) -> None:
    with pytest.raises(ResultsError, match=told):
        Results(**{"prompts": ["a"], "seeds": [0], "lams": [0, 1], "scores": {}, **axes})


def test_an_image_that_is_not_there_is_reported() -> None:
    images = table().images.copy()
    images[1, 0, 2] = ""
    gap = table(images=images)
    assert str(gap.image(0, 1, 3)) == "7.png"
    with pytest.raises(ResultsError, match="no image file of prompt 1, seed 0, lam 1 is known"):
        gap.image(1, 0, 2)
    with pytest.raises(ResultsError, match=r"the reference, lam = 0, is not among the lams 0\.5, 1"):
        _ = gap.select([0], [1, 2]).zero


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"seeds": 2}, "seeds: expected a list of whole numbers, such as .*, got 2"),
        ({"seeds": [0.5]}, "seeds: expected a list of whole numbers"),
        ({"prompts": "abc"}, "prompts: expected a list of texts, got 'abc'"),
        ({"prompts": [1]}, "prompts: expected a list of texts"),
        ({"lams": 0.5}, "lams: expected a list of numbers"),
        ({"lams": ["a", "b"]}, "lams: expected a list of numbers"),
        ({"scores": [[[1.0, 2.0]]]}, "scores: expected a mapping of names to arrays"),
        ({"paths": 3}, "paths: expected a mapping"),
        ({"path_kl": "x"}, "path_kl: expected an array of numbers"),
    ],
)
def test_values_of_another_type_are_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(ResultsError, match=expected):
        Results(**{"prompts": ["a"], "seeds": [0], "lams": [0, 1], "scores": {}, **wrong})


def test_a_direction_is_one_of_three() -> None:
    with pytest.raises(ResultsError, match="direction: expected one of higher, steady, none, got 'up'"):
        RewardInfo(direction="up")  # pyright: ignore[reportArgumentType]


def test_a_command_that_is_named_can_be_pasted() -> None:
    of_a_run = table(folder=Path("my runs/it's"), unscored={"hps": 1})
    with pytest.raises(ResultsError, match="no score of hps") as lacking:
        of_a_run.scored("hps")
    message = str(lacking.value)
    assert message.startswith("1 of 24 images has no score of hps; score the run: deradiff score ")
    command = message[message.index("deradiff") : message.index(" (from Python: run.score('hps'))")]
    assert shlex.split(command) == ["deradiff", "score", "my runs/it's", "--rewards", "hps"]
    assert of_a_run.select([0], [0, 1]).folder == of_a_run.on_axes(["b"], [0], [0, 1]).folder == of_a_run.folder
    with pytest.raises(ResultsError, match=r"no reward 'hps' here; .*score the run: run\.score\('hps'\)$"):
        table().scored("hps")


def test_a_run_stands_for_its_results() -> None:
    own = table()
    run: Any = SimpleNamespace(results=lambda: own)
    assert as_results(own) is as_results(run) is own
    for wrong in (None, "runs/a", SimpleNamespace(results=3), SimpleNamespace(results=lambda: 3)):
        with pytest.raises(ResultsError, match=r"expected a deradiff\.Run or deradiff\.Results, got "):
            as_results(wrong)  # pyright: ignore[reportArgumentType]
