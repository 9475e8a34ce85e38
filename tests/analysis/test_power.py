"""The number of prompts that it names settles the question about four times in five."""

import numpy as np
import pytest
from tests.analysis.synthetic import Floats, noise

from deradiff.analysis.limits import PromptMeans, p_values, prompt_means
from deradiff.analysis.power import prompts_to_show

RISK = 0.05


def one(values: Floats, lowest: float = np.nan) -> PromptMeans:
    return prompt_means(values[:, None, None], lowest=lowest)


def named(*tests: tuple[PromptMeans, float], power: float = 0.8) -> int:
    """The number of prompts, which these tests have."""
    found = prompts_to_show(tests, power=power)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "effect", "pilot"),
    [("normal", 0.5, 16), ("normal", 0.35, 40), ("exponential", 0.5, 16), ("binary", 0.0, 40)],
)
def test_fresh_samples_of_that_size_pass_four_times_in_five(kind: str, effect: float, pilot: int) -> None:
    """Of pilots that can name a number: the share of fresh samples of it that show the mean to be above 0."""
    rng, passed = np.random.default_rng(pilot), []

    def draw(prompts: int, count: int) -> Floats:
        if kind == "binary":  # 95% pass where 20% may fail
            return np.asarray(np.less(rng.random((prompts, count)), 0.95), dtype=float) - 0.8
        return np.asarray(noise(kind, rng, (prompts, count)) + effect, dtype=float)

    lowest = -0.8 if kind == "binary" else np.nan
    for _ in range(40):
        needed = prompts_to_show([(one(draw(pilot, 1)[:, 0], lowest), RISK)])
        if needed is not None:
            fresh = prompt_means(draw(needed, 10)[:, None], lowest=lowest)
            passed.append(np.mean(p_values(fresh, RISK) <= RISK))
    assert len(passed) >= 20
    most = 1.0 if kind == "exponential" else 0.95  # of a short lower tail a pilot expects more than there is
    assert 0.7 <= np.mean(passed) <= most


def test_nothing_is_named_where_the_mean_is_at_the_margin_or_below() -> None:
    values = np.random.default_rng(0).normal(size=12)
    values -= values.mean()
    assert prompts_to_show([(one(values), RISK)]) is None
    assert prompts_to_show([(one(values - 0.5), RISK)]) is None
    assert prompts_to_show([(one(values + 0.15), RISK)]) is None  # nor within what these prompts may err by
    assert prompts_to_show([(one(values[:1]), RISK)]) is None


def test_nearer_to_the_margin_takes_more_and_more_power_too() -> None:
    values = np.random.default_rng(0).normal(size=20)
    values -= values.mean()
    needed = [named((one(values + effect), RISK)) for effect in (2.0, 1.0, 0.5)]
    assert needed[0] < needed[1] < needed[2]
    half, most = (named((one(values + 1.0), RISK), power=power) for power in (0.5, 0.95))
    assert half < needed[1] < most
    assert named((one(values + 1.0), 0.01)) > needed[1]


def test_of_several_questions_the_one_that_needs_most_counts() -> None:
    values = np.random.default_rng(0).normal(size=20)
    values -= values.mean()
    near, far = one(values + 0.6), one(values + 3.0)
    assert named((near, RISK), (far, RISK)) == named((near, RISK)) > named((far, RISK))
    assert prompts_to_show([(far, RISK), (one(values), RISK)]) is None
    assert prompts_to_show([]) == 2
    assert named((near, RISK), (near, 0.01)) == named((near, 0.01)) > named((near, RISK))  # each at its own


def test_a_clear_result_takes_few() -> None:
    values = 100 + np.random.default_rng(0).normal(size=8)
    needed = prompts_to_show([(one(values), RISK)])
    assert needed is not None
    assert 2 <= needed <= 4
