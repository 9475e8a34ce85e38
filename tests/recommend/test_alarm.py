"""The hacking alarm: as many false alarms as claimed, and none missed that matters."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.recommend.subject import COLLAPSE, LAMS, RISE, results

from deradiff.recommend import Alarm, alarms, recommend
from deradiff.results import Results

FLAT = np.zeros(len(LAMS))
PROXY = ("proxy",)


def raised(
    table: Results, objectives: tuple[str, ...] = PROXY, guards: tuple[str, ...] = (), **settings: int
) -> list[Alarm]:
    return [alarm for alarm in alarms(table, objectives, guards, **settings) if alarm.raised]


def walks(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Noise that is alike at neighbouring lams and zero at the reference, with heavy tails."""
    steps = rng.standard_t(4, size=shape)
    steps[..., 0] = 0
    return steps.cumsum(axis=-1)


def null(seed: int, prompts: int) -> Results:
    """The objective rises; four held-out metrics don't, though their noise goes along with lam, prompt by prompt."""
    rng, shape = np.random.default_rng(seed), (prompts, 2, len(LAMS))
    held = {name: 0.1 * walks(rng, (prompts, 1, len(LAMS))) + 0.05 * walks(rng, shape) + 1 for name in "abcd"}
    table = results({"proxy": 3 * RISE}, prompts=prompts, seeds=2, rng_seed=seed)
    return dataclasses.replace(table, scores={**table.scores, **held})


@pytest.mark.parametrize("prompts", [6, 10, 40])
def test_false_alarms_are_as_rare_as_claimed_over_all_metrics_and_lams(prompts: int) -> None:
    runs = 400
    false = np.mean([bool(raised(null(seed, prompts), flips=400, seed=seed)) for seed in range(runs)])
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_metrics_beside_a_named_guard_cannot_drown_it() -> None:
    """A fall that is found alone is found still among many metrics that wander, where it was named."""
    alone, named, among = [], [], []
    for seed in range(40):
        table, flat = (
            results({"proxy": 3 * RISE, "gold": 0.1 * COLLAPSE}, noise=0.2, seeds=2, rng_seed=seed),
            null(seed, 8),
        )
        wide = dataclasses.replace(table, scores={**flat.scores, **table.scores})
        alone.append(bool(raised(table)))
        named.append(any(alarm.reward == "gold" for alarm in raised(wide, guards=("gold",))))
        among.append(any(alarm.reward == "gold" for alarm in raised(wide)))
    assert sum(among) < sum(named) <= sum(alone)


@pytest.mark.parametrize("prompts", [10, 40])
def test_false_alarms_are_as_rare_with_a_named_guard(prompts: int) -> None:
    runs = 400
    false = np.mean([bool(raised(null(seed, prompts), guards=("a",), flips=400, seed=seed)) for seed in range(runs)])
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_a_collapse_is_found_with_where_it_begins() -> None:
    found = [raised(results({"proxy": RISE, "gold": COLLAPSE}, noise=0.2, rng_seed=seed)) for seed in range(30)]
    assert all(found)
    onsets = np.array([one[0].onset for one in found])
    assert np.median(onsets) == 1
    assert (np.abs(onsets - 1) <= 0.5).mean() >= 0.9
    assert all(one[0].change.high < 0 < one[0].rise.low for one in found)


def test_a_fall_after_a_rise_is_found_though_it_ends_above_the_reference() -> None:
    hump = np.array([0, 0.5, 1, 2, 1.6, 1.2, 0.4])
    (alarm,) = raised(results({"proxy": RISE, "gold": hump}))
    assert (alarm.before, alarm.after) == (1, 4)


@pytest.mark.parametrize("objective", [FLAT, -RISE])
def test_without_a_rise_of_the_objective_nothing_is_hacked(objective: NDArray[np.float64]) -> None:
    found = [raised(results({"proxy": objective, "gold": COLLAPSE}, rng_seed=seed)) for seed in range(20)]
    assert sum(map(bool, found)) <= 6  # noise rises somewhere one time in twenty a pair


def test_what_is_said_not_to_matter_raises_no_alarm() -> None:
    table = results({"proxy": RISE, "gold": COLLAPSE})
    assert raised(table)
    assert not raised(dataclasses.replace(table, better={"gold": "none"}))


@pytest.mark.parametrize(("slope", "alarm"), [(0.1, False), (1.0, True), (-1.0, True)])
def test_what_should_stay_may_move_a_little_to_either_side(slope: float, alarm: bool) -> None:
    curve = 4 + 0.9 * slope * np.array(LAMS)
    table = results({"proxy": RISE, "saturation": curve}, noise=0.02, level=0.1)
    found = raised(dataclasses.replace(table, better={"saturation": "steady"}))
    assert bool(found) == alarm
    if found:
        assert (found[0].drifts, found[0].before, found[0].after) == (True, 0, 1.5)  # 25 % of 4 is passed at 1.1


def test_a_metric_of_negative_numbers_may_move_as_much() -> None:
    table = results({"proxy": RISE, "shift": -4 + 0.1 * np.array(LAMS)}, noise=0.02, level=0.1)
    assert not raised(dataclasses.replace(table, better={"shift": "steady"}))


def test_the_surest_comes_first() -> None:
    table = results({"proxy": RISE, "gold": 0.02 * COLLAPSE, "silver": COLLAPSE}, prompts=20, noise=0.05)
    found = raised(table)
    assert [alarm.reward for alarm in found] == ["silver", "gold"]
    assert found[0].t > found[1].t


def test_what_happens_below_the_reference_is_no_hacking() -> None:
    lams = (-4.0, -2.0, -1.0, 0.0, 1.0)
    table = results({"proxy": np.array(lams), "gold": -np.clip(np.array(lams), None, 0)}, lams=lams)
    assert not raised(table)


def test_several_objectives_are_told_apart() -> None:
    table = results({"proxy": RISE, "other": -RISE, "gold": COLLAPSE})
    assert {alarm.objective for alarm in raised(table, ("proxy", "other"))} == {"proxy"}


def test_the_alarm_is_told_in_words() -> None:
    choice = recommend(results({"proxy": RISE, "gold": COLLAPSE}), objective="proxy")
    assert "while gold changes by -3" in choice.hacking[0]
    assert "the fall begins at about lam = 1;" in choice.hacking[0] or choice.hacking[0].endswith("lam = 1.")
