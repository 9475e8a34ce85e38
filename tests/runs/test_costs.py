"""What sampling costs, told before it begins: what is missing, evaluations, and time and disk by what was recorded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runs import small_runs
from tests.runs.painted import cells_of, painted
from tests.runs.small_runs import PROMPTS, finished, grown, recipe_of

from deradiff.runs import costs
from deradiff.runs.cells import Request, union
from deradiff.runs.costs import Rates, estimate_cost, recorded_rates
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import SamplingInfo
from deradiff.runs.run import Run
from deradiff.runs.runner import sampling


def recorded(run: Run) -> list[SamplingInfo]:
    return [record.info for record in run.store.records()]


def asked(**changes: Any) -> Request:
    return Request(**{"prompts": PROMPTS, "seeds": [0, 1], "lams": [0, 0.5, 1], **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 5, "diagnostics": False},
        {"policy": "weights", "batch_size": 5},
        {"particles": 2, "batch_size": 5},
    ],
    ids=str,
)
def test_what_is_estimated_is_what_it_takes(tmp_path: Path, models: tuple[str, str], changes: dict[str, Any]) -> None:
    run = Run(tmp_path, recipe_of(models, **{"scheduler": "DDIMScheduler", **changes}))
    told = run.cost(run.requests(PROMPTS, 2, [0, 0.5, 1]))
    assert (told.cells, told.missing) == (12, 12)
    assert (told.seconds, told.disk) == (None, None)
    finished(tmp_path, run.recipe)
    assert sum(info.nfe for info in recorded(run)) == told.nfe


@pytest.mark.parametrize("refresh", [2, 3, None])
def test_reuse_takes_what_is_estimated_for_each_lam(
    tmp_path: Path, models: tuple[str, str], refresh: int | None
) -> None:
    run = Run(tmp_path, recipe_of(models, policy="reuse", refresh=refresh, steps=7))
    told = run.cost(run.requests(PROMPTS, 1, [0.5]))
    finished(tmp_path, run.recipe, seeds=1, lams=[0.5])
    assert sum(info.nfe for info in recorded(run)) == told.nfe


@pytest.mark.parametrize("policy", ["adaptive", "reuse"])
def test_a_policy_that_saves_takes_no_more_than_is_estimated(
    tmp_path: Path, models: tuple[str, str], policy: str
) -> None:
    run = Run(tmp_path, recipe_of(models, policy=policy, steps=6, scheduler="DDIMScheduler"))
    told = run.cost(run.requests(PROMPTS, 2, [0, 0.5, 1]))
    finished(tmp_path, run.recipe)
    took = sum(info.nfe for info in recorded(run))
    assert 0.5 * told.nfe < took <= told.nfe
    later = run.cost(run.requests(seeds=[2]))  # by what this run has saved so far
    assert later.nfe == pytest.approx(took / 2, abs=1)


def test_only_what_is_missing_costs(tmp_path: Path, models: tuple[str, str]) -> None:
    run = finished(tmp_path, recipe_of(models), (0, 2))
    each = 2 * 2  # both models at both steps
    assert (run.cost().cells, run.cost().missing, run.cost().nfe) == (12, 6, 6 * each)
    more = [asked(), asked(lams=[0, 2], prompts=["a third"]), asked(seeds=[1, 2])]
    cost = run.cost(more)
    assert (cost.cells, cost.missing, cost.nfe) == (12 + 4 + 6, 6 + 4 + 6, 16 * each)
    shards = [run.cost(more, (shard, 3)) for shard in range(3)]
    assert sum(own.cells for own in shards) == cost.cells
    assert sum(own.nfe for own in shards) == cost.nfe
    grown(tmp_path, run.recipe)
    done = run.cost()
    assert (done.cells, done.missing, done.nfe, done.seconds) == (12, 0, 0, 0)
    next(tmp_path.rglob("*.png")).unlink()
    assert run.cost().missing == 1
    assert list(union(run.store.requests())) == list(asked().cells())  # a question is no request


def test_time_and_disk_are_those_of_what_was_sampled(tmp_path: Path) -> None:
    store = painted(tmp_path)  # 36 images; a block of 3 takes 0.5 s
    files = [path.stat().st_size for path in tmp_path.rglob("*.png")]
    cost = estimate_cost(store, [asked(prompts=["new"])])
    assert (cost.cells, cost.missing) == (6, 6)
    assert cost.seconds == pytest.approx(6 * 0.5 / 3)
    assert cost.disk == pytest.approx(6 * sum(files) / len(files))
    assert cost.source == "36 images of this run"
    rates = recorded_rates(store)
    assert rates is not None
    share = 1 / (2 * store.recipe.steps)  # painting takes an evaluation an image
    assert rates.nfe_share == pytest.approx(share)
    assert cost.nfe == 6
    given = Rates(seconds_per_nfe=2.0, bytes_per_image=10.0, nfe_share=1.0, source="me")
    told = estimate_cost(store, [asked(prompts=["new"])], rates=given)
    assert (told.nfe, told.disk, told.source) == (12 * store.recipe.steps, 60, "me")
    assert told.seconds == 2 * told.nfe


def test_nothing_recorded_shows_no_time(tmp_path: Path) -> None:
    store = painted(tmp_path, shard=(99, 100))
    assert recorded_rates(store) is None
    cost = estimate_cost(store, store.requests())
    assert (cost.missing, cost.seconds, cost.disk, cost.source) == (36, None, None, "nothing sampled yet")


class Clock:
    """Time that passes a second a network's call."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    own = Clock()
    monkeypatch.setattr(costs, "time", own)

    def tick(*_: Any) -> None:
        own.now += 1

    hook = small_runs.pipeline(models[0]).unet.register_forward_pre_hook(tick)
    yield own
    hook.remove()


def test_a_run_without_records_is_timed_on_two_short_calls(
    tmp_path: Path, models: tuple[str, str], clock: Clock
) -> None:
    run = Run(tmp_path, recipe_of(models, steps=10))
    with sampling(small_runs.pipeline(models[0]), models[1], run.recipe) as sampler:
        cost = run.cost(run.requests(PROMPTS, 2, [0, 0.5, 1]), sampler=sampler)
        assert clock.now == 2 * (2 + 4)  # both models at each step
        few = run.cost(run.requests(PROMPTS[:1], 2, [0, 0.5, 1]), sampler=sampler)
        assert clock.now == 12
    assert cost.seconds == pytest.approx(4 * 2 * 10)  # four blocks of three images
    assert cost.nfe == 12 * 2 * 10
    assert cost.disk is not None
    assert cost.disk > 0
    assert cost.source == "two calls of 2 and 4 steps"
    assert (few.missing, few.seconds) == (6, None)
    assert not run.store.exists(tmp_path)


def test_what_was_recorded_is_not_timed_again(tmp_path: Path, models: tuple[str, str], clock: Clock) -> None:
    run = finished(tmp_path, recipe_of(models))
    before = clock.now
    with sampling(small_runs.pipeline(models[0]), models[1], run.recipe) as sampler:
        cost = run.cost([asked(seeds=range(9))], sampler=sampler)
    assert clock.now == before
    assert cost.source == "12 images of this run"
    assert cost.seconds is not None
    took = sum(info.seconds for info in recorded(run))
    assert cost.seconds == pytest.approx(took / 12 * cost.missing)


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({}, {0: 20, 0.5: 20, 1: 20, 2: 20}),
        ({"diagnostics": False}, {0: 10, 0.5: 20, 1: 10, 2: 20}),
        ({"particles": 3}, {0: 20, 0.5: 60, 1: 20, 2: 20}),
        ({"policy": "weights"}, {0: 10, 0.5: 10, 1: 10, 2: 10}),
        ({"policy": "reuse"}, {0: 15, 0.5: 15, 1: 15, 2: 15}),  # the anchor at steps 0, 1, 4, 7 and 9
        ({"policy": "reuse", "refresh": 5}, {0: 14, 0.5: 14, 1: 14, 2: 14}),
        ({"policy": "adaptive"}, {0: 20, 0.5: 20, 1: 20, 2: 20}),
    ],
    ids=str,
)
def test_evaluations_of_an_image(changes: dict[str, Any], each: dict[float, int]) -> None:
    recipe = Recipe(model="m", anchor="a", steps=10, **changes)
    assert {lam: recipe.nfe(lam) for lam in each} == each


def test_a_cost_changes_nothing(tmp_path: Path) -> None:
    store = painted(tmp_path)
    before = small_runs.contents(tmp_path)
    estimate_cost(store, [asked()])
    assert small_runs.contents(tmp_path) == before
    assert len(cells_of(store)) == 36
