"""A hacking alarm that isn't raised: how near it was, and when there is none to be raised."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.recommend.subject import COLLAPSE, LAMS, RISE, results

from deradiff.recommend import recommend
from deradiff.recommend.alarm import LEVEL

FLAT = np.zeros(len(LAMS))


def test_a_silent_alarm_tells_how_near_it_was() -> None:
    """Each drops by 0.2 from lam = 1 on; what differs is the noise, so how near it is."""
    step = np.where(np.array(LAMS) > 1, -0.2, 0)
    table = results({"proxy": RISE, "near": step, "far": step}, prompts=6, seeds=1, noise=0.1)
    far = table.scores["far"] + np.random.default_rng(1).normal(size=table.images.shape)
    choice = recommend(dataclasses.replace(table, scores={**table.scores, "far": far}), objective="proxy")
    nearest, other = choice.alarms
    assert (nearest.reward, nearest.raised, other.raised) == ("near", False, False)
    assert LEVEL < nearest.p_value < other.p_value
    assert choice.hacking == ()
    assert choice.silence is not None
    assert f"the closest is near from lam = {nearest.before:g} to {nearest.after:g} ({nearest.change}" in choice.silence
    assert f"6 prompts leave room for a change of {nearest.change.figures[1]} there" in choice.silence


NO_ALARM: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"curves": {"proxy": RISE, "gold": COLLAPSE}, "prompts": 5}, {}, "needs 6 prompts"),
    ({"curves": {"proxy": RISE}}, {}, "No guard"),
    ({"curves": {"proxy": RISE, "gold": COLLAPSE}}, {"gold": "none"}, "needs a lam above 0"),
    ({"curves": {"proxy": FLAT[:2], "gold": FLAT[:2]}, "lams": (-1.0, 0.0)}, {}, "needs a lam above 0"),
]


@pytest.mark.parametrize(("given", "better", "words"), NO_ALARM)
def test_nothing_is_said_of_silence_where_no_alarm_could_be_raised(
    given: dict[str, Any], better: dict[str, str], words: str
) -> None:
    choice = recommend(dataclasses.replace(results(**given), better=better), objective="proxy")
    assert (choice.alarms, choice.silence) == ((), None)
    assert any(words in warning for warning in choice.warnings)


def test_where_one_alarm_is_raised_the_silent_ones_stay_silent() -> None:
    choice = recommend(results({"proxy": RISE, "gold": COLLAPSE, "calm": FLAT}), objective="proxy")
    assert [alarm.raised for alarm in choice.alarms] == [True, False]
    assert (len(choice.hacking), choice.silence) == (1, None)


@pytest.mark.parametrize("slope", [0.2, -0.2])
def test_of_what_should_stay_silence_leaves_room_on_the_side_it_moved_to(slope: float) -> None:
    table = results({"proxy": RISE, "edges": 4 + slope * np.array(LAMS)}, noise=0.02, level=0.1)
    choice = recommend(dataclasses.replace(table, better={"edges": "steady"}), objective="proxy")
    low, high = choice.alarms[0].change.figures[1:]
    assert "25% off the reference is allowed" in str(choice.silence)
    assert f"a change of {high if slope > 0 else low} there" in str(choice.silence)


def test_silence_leaves_room_for_a_fall_whatever_the_mean_did() -> None:
    curves = {"proxy": np.array([0.0, 1]), "gold": np.zeros(2)}
    tables = [results(curves, lams=(0.0, 1.0), prompts=6, rng_seed=seed) for seed in range(10)]
    choices = [recommend(table, objective="proxy") for table in tables]
    silent = {choice.silence: choice.alarms[0].change for choice in choices if choice.silence}
    open_ended = {said: change for said, change in silent.items() if change.low < 0}
    assert {change.mean > 0 for change in open_ended.values()} == {False, True}
    assert all(f"a change of {change.figures[1]} there" in said for said, change in open_ended.items())


def test_of_what_only_rises_silence_leaves_no_room() -> None:
    choice = recommend(results({"proxy": RISE, "gold": RISE}, noise=0.001), objective="proxy")
    assert "the closest is gold" in str(choice.silence)
    assert "room" not in str(choice.silence)
