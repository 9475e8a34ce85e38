"""Intervals as they are printed, shares of wins, and what looking at many lams costs."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from tests.analysis.synthetic import noise, share_above

from deradiff.analysis.limits import prompt_means
from deradiff.analysis.statistics import (
    Interval,
    intervals,
    mean_interval,
    sign_flips,
    simultaneous_risk,
    t_values,
    win_rate,
)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((-0.01724, -0.00586, 0.00552), "-0.006 (95% interval -0.017 to +0.006)"),
        ((11.2, 30.9, 50.6), "+31 (95% interval +11 to +51)"),
        ((2.0, 2.0, 2.0), "+2.000 (95% interval +2.000 to +2.000)"),
        ((-np.inf, 0.5, np.inf), "+0.500 (95% interval -inf to +inf)"),
    ],
)
def test_an_interval_is_reported_in_digits_that_its_width_supports(limits: tuple[float, ...], words: str) -> None:
    low, mean, high = limits
    assert str(Interval(mean=mean, low=low, high=high)) == words


@pytest.mark.parametrize("prompts", [3, 10])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_intervals_hold_the_mean_at_their_level(prompts: int, kind: str) -> None:
    values = noise(kind, np.random.default_rng(prompts), (prompts, 1, 400))
    found = intervals(prompt_means(values))
    missed = np.mean([not own.low <= 0 <= own.high for own in found])
    assert missed <= share_above(0.05, 400)
    assert all(own.low < own.mean < own.high for own in found)
    wider = intervals(prompt_means(values[:, :, :5]), 0.99)
    assert all(wide.low < own.low and own.high < wide.high for wide, own in zip(wider, found, strict=False))


@pytest.mark.parametrize("value", [0.0, 3.0, -0.2])
@pytest.mark.parametrize("prompts", [2, 10])
def test_no_interval_has_zero_width_though_all_prompts_agree(value: float, prompts: int) -> None:
    found = mean_interval(np.full((prompts, 1), value))
    assert found.mean == pytest.approx(value)
    assert found.low < value < found.high


def test_agreeing_prompts_narrow_as_they_get_more() -> None:
    widths = [own.high - own.low for own in (mean_interval(np.full((prompts, 1), 3.0)) for prompts in (2, 10, 100))]
    assert widths[0] > widths[1] > widths[2] > 0


@pytest.mark.parametrize("wins", [0, 3, 35, 50])
def test_win_rates_are_clopper_pearson_where_there_is_one_image_a_prompt(wins: int) -> None:
    exact = binomtest(wins, 50).proportion_ci(0.95, "exact")
    rate = win_rate((np.arange(50) < wins).astype(float)[:, None], np.full((50, 1), 0.5))
    assert (rate.mean, rate.low, rate.high) == pytest.approx((wins / 50, exact.low, exact.high), abs=1e-5)


@pytest.mark.parametrize(("prompts", "truth"), [(5, 0.8), (12, 0.9)])
def test_win_rates_hold_the_truth_where_prompts_agree_with_themselves(prompts: int, truth: float) -> None:
    """Four images of five win or lose as their prompt does: an ICC of .8."""
    runs, rng = 100, np.random.default_rng(prompts)
    missed = 0
    for _ in range(runs):
        prompt, own = rng.random((prompts, 1)) < truth, rng.random((prompts, 4)) < truth
        images = np.where(rng.random((prompts, 4)) < 0.8**0.5, prompt, own).astype(float)
        rate = win_rate(images, np.full(images.shape, 0.5))
        missed += not rate.low <= truth <= rate.high
    assert missed / runs <= share_above(0.05, runs)


def test_images_of_a_prompt_that_agree_count_once() -> None:
    once = (np.random.default_rng(0).random((30, 1)) < 0.7).astype(float)
    half = np.full((30, 1), 0.5)
    alone, repeated = win_rate(once, half), win_rate(np.tile(once, (1, 10)), np.tile(half, (1, 10)))
    assert (repeated.mean, repeated.low, repeated.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_a_share_of_all_is_not_certain() -> None:
    sure, never = win_rate(np.ones((5, 4)), np.zeros((5, 4))), win_rate(np.zeros((5, 4)), np.ones((5, 4)))
    assert (sure.mean, sure.high) == (1, 1)
    assert 0.3 < sure.low < 0.6
    assert (never.mean, never.low, never.high) == pytest.approx((0, 0, 1 - sure.low))


def test_ties_are_half_a_win() -> None:
    even = np.zeros((4, 1))
    assert win_rate(np.array([[0.0], [0.0], [1.0], [-1.0]]), even).mean == 0.5
    assert win_rate(np.array([[0.0], [0.0], [1.0], [1.0]]), even).mean == 0.75


def test_an_image_against_several_others_is_one_trial() -> None:
    """Twelve images that win, lose, and halve their meetings with two trainings, alike in every prompt."""
    table = np.tile([1.0, -1.0, 0.0], (4, 1))
    found = win_rate(table, np.stack([np.full((4, 3), -0.5), np.full((4, 3), 0.5)]))
    once = win_rate(table, np.zeros((4, 3)))
    assert (found.mean, found.low, found.high) == pytest.approx((once.mean, once.low, once.high))


@pytest.mark.parametrize("two_sided", [False, True])
def test_what_moves_together_costs_no_more_than_one_and_what_does_not_no_more_than_bonferroni(two_sided: bool) -> None:
    rng, sides = np.random.default_rng(0), 2 if two_sided else 1
    apart = rng.normal(size=(20, 8))
    alike = np.repeat(apart[:, :1], 8, axis=1)
    for columns in (apart, alike):
        each = simultaneous_risk(columns, 0.05, two_sided=two_sided)
        assert 0.05 / sides / 8 <= each <= 0.05 / sides
        shifted = simultaneous_risk(columns[rng.permutation(20)] + 5, 0.05, two_sided=two_sided)
        assert shifted == pytest.approx(each)
    assert simultaneous_risk(alike, 0.05, two_sided=two_sided) > 0.8 * 0.05 / sides
    assert simultaneous_risk(apart, 0.05, two_sided=two_sided) < 0.3 * 0.05 / sides


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("columns", [np.full((1, 4), 2.0), np.full((0, 4), 2.0), np.where(np.arange(5) < 1, 1, np.nan)])
def test_fewer_than_two_prompts_of_a_column_cost_what_bonferroni_does(columns: Any, two_sided: bool) -> None:
    columns = np.tile(columns[:, None], 4) if columns.ndim == 1 else columns
    assert simultaneous_risk(columns, 0.05, two_sided=two_sided) == pytest.approx(0.05 / 4 / (1 + two_sided))
    assert simultaneous_risk(columns[:, :0], 0.05, two_sided=two_sided) == pytest.approx(0.05 / (1 + two_sided))


def test_gaps_cost_no_more_than_bonferroni_and_no_less_than_whole_columns() -> None:
    """The third of prompts that lack half of the columns."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(20):
        whole = rng.normal(size=(18, 6)).cumsum(axis=1)
        gaps = whole.copy()
        gaps[:6, 3:] = np.nan
        each = simultaneous_risk(gaps, 0.05)
        assert 0.05 / 6 <= each <= 0.05
        ratios.append(each / simultaneous_risk(whole, 0.05))
    assert 0.6 < np.mean(ratios) < 1.4


@pytest.mark.parametrize(("prompts", "correlated"), [(8, False), (8, True), (16, False)])
def test_limits_at_the_simultaneous_risk_hold_the_whole_of_a_long_curve(prompts: int, correlated: bool) -> None:
    runs, rng = 50, np.random.default_rng(prompts)
    missed = 0
    for _ in range(runs):
        values = rng.normal(size=(prompts, 12))
        values = values.cumsum(axis=1) if correlated else values
        each = simultaneous_risk(values, 0.05, two_sided=True)
        missed += any(not own.low <= 0 <= own.high for own in intervals(prompt_means(values[:, None]), 1 - 2 * each))
    assert missed / runs <= share_above(0.05, runs)


def test_signs_are_the_same_in_every_run_and_t_is_students() -> None:
    signs = sign_flips(6)
    np.testing.assert_array_equal(signs, sign_flips(6))
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(signs.mean()) < 0.05
    columns = np.random.default_rng(0).normal(size=(6, 3)) + 1
    wanted = columns.mean(axis=0) / columns.std(axis=0, ddof=1) * np.sqrt(6)
    np.testing.assert_allclose(t_values(columns), wanted)
    np.testing.assert_allclose(t_values(columns, np.ones((1, 6)))[0], wanted)
    np.testing.assert_allclose(t_values(columns, -np.ones((1, 6)))[0], -wanted)
