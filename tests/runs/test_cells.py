"""Cells and requests: what is refused, what names an image, and how cells are dealt to blocks and shards."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deradiff.errors import ConfigError
from deradiff.runs.cells import Cell, Keys, Request, blocks, image_name, union
from deradiff.runs.recipe import Recipe

GIVEN: dict[str, Any] = {"prompts": ["one", "two"], "seeds": [0, 1], "lams": [1.0, 0.0]}
CELL = Cell("one", 0, None, 0.5)


def request(**changes: Any) -> Request:
    return Request(**{**GIVEN, **changes})


@st.composite
def requests(draw: st.DrawFn) -> Request:
    def some(values: list[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=1, unique=True))

    numbers = list(range(4))
    prompts, guidances = some(["one", "two", "three"]), some([1, 4])
    return request(prompts=prompts, seeds=some(numbers), lams=some(numbers), guidances=guidances)


def everything(own: Request) -> set[Cell]:
    return {
        Cell(prompt, seed, guidance, lam)
        for prompt in own.prompts
        for seed in own.seeds
        for guidance in own.guidances
        for lam in own.lams
    }


@given(requests())
def test_a_request_is_every_combination_once(own: Request) -> None:
    cells = list(own.cells())
    assert len(cells) == own.count == len(set(cells))
    assert set(cells) == everything(own)


@given(st.lists(requests(), min_size=1, max_size=4))
def test_a_union_holds_every_cell_once_the_first_requests_first(several: list[Request]) -> None:
    cells = list(union(several))
    assert len(cells) == len(set(cells))
    assert set(cells) == set[Cell]().union(*map(everything, several))
    assert cells == list(dict.fromkeys(cell for own in several for cell in own.cells()))


@given(st.lists(requests(), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 4))
def test_shards_hold_every_cell_once_in_blocks_of_one_guidance(several: list[Request], size: int, shards: int) -> None:
    cells = list(union(several))
    whole = list(blocks(cells, size))
    assert [cell for block in whole for cell in block] == cells
    for block in whole:
        assert 0 < len(block) <= size
        assert len({cell.guidance for cell in block}) == 1
    assert [list(blocks(cells, size, (shard, shards))) for shard in range(shards)] == [
        whole[shard::shards] for shard in range(shards)
    ]


def test_a_block_is_full_unless_the_next_image_has_another_guidance() -> None:
    cells = list(request(guidances=[1, 4], seeds=[0, 1, 2]).cells())
    assert [len(block) for block in blocks(cells, 5)] == [5, 5, 2, 5, 5, 2]


def test_the_images_of_a_prompt_come_together_and_lams_turn_fastest() -> None:
    cells = list(request(seeds=[1, 0]).cells())
    assert cells[:4] == [Cell("one", seed, None, lam) for seed in (1, 0) for lam in (0, 1)]
    assert {cell.prompt for cell in cells[:4]} == {"one"}


@pytest.mark.parametrize("shard", [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_that_is_none_is_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="no shard"):
        list(blocks(request().cells(), 1, shard))


def test_keys_distinguish_what_changes_the_image_and_nothing_else() -> None:
    def key(cell: Cell = CELL, **changes: Any) -> str:
        return Keys(Recipe(**{"model": "m", "anchor": "a", **changes}).identity)(cell)

    here = key()
    assert key(diagnostics=False) == key(anchor_beta=2) == here
    known: dict[str, Any] = {"model_hash": "1", "anchor_hash": "2"}
    assert key(**known) == key(**known, model="elsewhere", anchor="elsewhere too") != here
    cells = [
        Cell("two", 0, None, 0.5),
        Cell("one", 1, None, 0.5),
        Cell("one", 0, 7.5, 0.5),
        Cell("one", 0, None, 0.25),
        Cell("one", 0, 0.5, 0.5),
    ]
    changes: list[dict[str, Any]] = [{"steps": 3}, {"model": "b"}, {"anchor": "b"}, {"policy": "reuse"}, known]
    changes += [{"policy": "adaptive", "target_error": share} for share in (0.1, 0.2)]
    changes += [{"dtype": "float16"}, {"batch_size": 2}, {"particles": 2}, {"component": "c"}]
    changes.append({"height": 8, "width": 8})
    keys = [here, *map(key, cells), *(key(**change) for change in changes)]
    assert len(set(keys)) == len(keys)
    folder, group, file = image_name(here).split("/")
    assert (folder, group, file) == ("images", here[:2], f"{here}.png")
    assert len(here) == 32


def test_a_value_has_one_key_however_it_is_written() -> None:
    (one,) = request(prompts=["one"], seeds=[0], lams=[-0.0], guidances=[4]).cells()
    (other,) = Request.model_validate_json('{"prompts":["one"],"seeds":[0],"lams":[0],"guidances":[4.0]}').cells()
    assert Keys("")(one) == Keys("")(other)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a", " "]}, "empty"),
        ({"prompts": ["a", "a"]}, "twice"),
        ({"prompts": ["a" * 100_001]}, "100,001 characters"),
        ({"prompts": ["\ud800"]}, "prompts"),
        ({"lams": []}, "lams"),
        ({"lams": [float("nan")]}, "finite"),
        ({"lams": [1, 1.0]}, "twice"),
        ({"lams": [0.0, -0.0]}, "twice"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": [0.5]}, "seeds"),
        ({"guidances": []}, "guidances"),
        ({"guidances": [5, 5]}, "twice"),
        ({"guidances": [float("inf")]}, "finite"),
        ({"guidances": [None, 5]}, "give it as a number"),
        ({"guidence": 7}, "guidence"),
    ],
)
def test_images_that_cannot_be_asked_for_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        request(**change)


def test_an_error_about_many_prompts_is_short() -> None:
    with pytest.raises(ConfigError) as told:
        request(prompts=[f"prompt {i}" for i in range(10_000)] + [""])
    assert len(str(told.value)) < 300


def test_a_request_is_what_it_holds() -> None:
    assert request(lams=[1, 0]) == request(lams=[0.0, 1.0])
    assert Request.model_validate_json(request(guidances=[2]).model_dump_json()) == request(guidances=[2])
