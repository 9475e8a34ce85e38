"""Plans: what is refused, how cells are dealt out to batches and shards, and what names an image."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deradiff.errors import PlanError
from deradiff.sweep import Cell, Plan

GIVEN: dict[str, Any] = {"model": "m", "anchor": "a", "prompts": ["one", "two"], "seeds": [0, 1], "lams": [1.0, 0.0]}


def plan(**changes: Any) -> Plan:
    return Plan.of(**{**GIVEN, **changes})


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    sizes = {name: draw(st.integers(1, 5)) for name in ("prompts", "seeds", "guidances", "lams")}
    lists = {name: [str(i) if name == "prompts" else i for i in range(size)] for name, size in sizes.items()}
    return plan(**lists, batch_size=draw(st.integers(1, 40)), mode=draw(st.sampled_from(["exact", "adaptive"])))


@given(plans(), st.integers(1, 4))
def test_shards_hold_every_cell_once(own: Plan, shards: int) -> None:
    cells = [cell for shard in range(shards) for cell in own.cells((shard, shards))]
    everything = {
        Cell(prompt, seed, guidance, lam)
        for prompt in range(len(own.prompts))
        for seed in range(len(own.seeds))
        for guidance in range(len(own.guidances))
        for lam in range(len(own.lams))
    }
    assert len(cells) == own.count == len(everything)
    assert set(cells) == everything


@given(plans())
def test_batches_are_blocks_at_every_lam_within_the_batch_size(own: Plan) -> None:
    lams = len(own.lams)
    batches = list(own.batches())
    assert len(batches) == own.batch_count
    for index, batch in enumerate(batches):
        assert batch == own.batch(index)
        cells = list(batch.cells(own))
        assert cells == sorted(cells)
        assert batch.count(own) == len(cells) == len(batch.prompts) * len(batch.seeds) * lams
        pairs = len(cells) // lams
        assert pairs == 1 or (pairs * 2 if own.mode == "adaptive" else (pairs - 1) * lams) <= own.batch_size


def test_batches_of_one_prompt_are_neighbours_and_guidances_turn_fastest() -> None:
    own = plan(guidances=[1, 5], seeds=[0, 1, 2], batch_size=3)  # two pairs a batch
    batches = [(list(batch.prompts), list(batch.seeds), batch.guidance) for batch in own.batches()]
    first = [([0], [0, 1], 0), ([0], [0, 1], 1), ([0], [2], 0), ([0], [2], 1)]
    assert batches == first + [([1], seeds, guidance) for _, seeds, guidance in first]
    whole = plan(seeds=[0, 1, 2], batch_size=14)  # seven pairs: both prompts with all their seeds
    assert [(list(batch.prompts), list(batch.seeds)) for batch in whole.batches()] == [([0, 1], [0, 1, 2])]


@pytest.mark.parametrize("shard", [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_that_is_none_is_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(PlanError, match="no shard"):
        plan().batches(shard)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_batch_that_is_none_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="of 2"):
        plan(batch_size=4).batch(index)


def test_image_names_tell_apart_what_changes_the_image_and_nothing_else() -> None:
    def first(**changes: Any) -> str:
        return plan(**changes).image_names()(Cell(0, 0, 0, 0))

    here = first()
    same: dict[str, Any] = {"prompts": ["one"], "lams": [-0.0], "seeds": [0], "batch_size": 1, "anchor_beta": 2}
    assert first(**same) == here
    assert first(diagnostics=False) == here
    changes: list[dict[str, Any]] = [{"steps": 3}, {"guidances": [2]}, {"anchor": "b"}, {"mode": "reuse"}]
    changes += [{"mode": "adaptive", "quality": t} for t in (0.1, 0.2)]
    changes += [{"dtype": "float16"}, {"prompts": ["two"]}, {"seeds": [9]}]
    own = plan(guidances=[1, 5])
    names = [here, *map(own.image_names(), own.cells()), *(first(**change) for change in changes)]
    assert len(set(names)) == len(names)
    folder, group, file = here.split("/")
    assert (folder, file[:2], file[-4:]) == ("images", group, ".png")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a", " "]}, "empty"),
        ({"prompts": ["a", "a"]}, "twice"),
        ({"lams": [float("nan")]}, "finite"),
        ({"lams": [1, 1.0]}, "twice"),
        ({"lams": [0.0, -0.0]}, "twice"),
        ({"seeds": [0, 0]}, "twice"),
        ({"steps": 0}, "steps"),
        ({"guidances": []}, "guidances"),
        ({"guidances": [5, 5]}, "twice"),
        ({"guidances": [float("inf")]}, "finite"),
        ({"guidances": [None, 5]}, "give it as a number"),
        ({"guidence": 7}, "guidence"),
        ({"anchor_beta": -1}, "anchor_beta"),
        ({"dtype": "float8"}, "float16"),
        ({"mode": "fast"}, "adaptive"),
        ({"quality": 0.1}, "quality: is a setting of mode='adaptive'"),
        ({"quality": 0.01, "mode": "reuse"}, "quality: is a setting of mode='adaptive'"),
        ({"quality": 1, "mode": "adaptive"}, "quality"),
        ({"refresh": 0, "mode": "reuse"}, "refresh"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(PlanError, match=word):
        plan(**change)


def test_an_error_about_many_prompts_is_short() -> None:
    with pytest.raises(PlanError) as told:
        plan(prompts=[f"prompt {i}" for i in range(10_000)] + [""])
    assert len(str(told.value)) < 300


def test_a_plan_is_what_it_holds() -> None:
    assert plan(lams=[1, 0]) == plan(lams=[0.0, 1.0])
    assert hash(plan(lams=[1, 0])) == hash(plan(lams=[0.0, 1.0]))
    assert Plan.model_validate_json(plan(guidances=[2]).model_dump_json()) == plan(guidances=[2])
