"""Confidence limits of a mean over prompts: what they equal, what they know nothing of, and how often they err."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, ttest_1samp
from tests.analysis.synthetic import Floats, noise, share_above

from deradiff.analysis.limits import PromptMeans, lower_limits, p_values, prompt_means, upper_limits

RISK = 0.05


def counted(wins: int, prompts: int) -> PromptMeans:
    """So many of all prompts win."""
    values = (np.arange(prompts) < wins).astype(float)
    return prompt_means(values[:, None, None], lowest=0.0, highest=1.0)


def drawn(values: Floats) -> PromptMeans:
    """One image a prompt (P, K)."""
    return prompt_means(values[:, None])


@pytest.mark.parametrize("prompts", [2, 5, 13, 40, 200])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.93])
def test_p_values_of_counts_are_clopper_and_pearsons(prompts: int, threshold: float) -> None:
    for wins in range(0, prompts + 1, max(1, prompts // 13)):
        exact = beta.cdf(threshold, wins, prompts - wins + 1) if wins else 1.0  # P(Binomial >= wins)
        assert p_values(counted(wins, prompts), RISK, threshold)[0] == pytest.approx(exact, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("wins", "prompts"), [(0, 7), (1, 2), (3, 5), (7, 7), (36, 40), (59, 59), (100, 200)])
@pytest.mark.parametrize("risk", [0.2, 0.025])
def test_limits_of_counts_are_clopper_and_pearsons(wins: int, prompts: int, risk: float) -> None:
    low = beta.ppf(risk, wins, prompts - wins + 1) if wins else 0.0
    high = beta.ppf(1 - risk, wins + 1, prompts - wins) if wins < prompts else 1.0
    assert lower_limits(counted(wins, prompts), risk)[0] == pytest.approx(low, abs=1e-5)
    assert upper_limits(counted(wins, prompts), risk)[0] == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("kind", ["normal", "exponential", "mirrored"])
@pytest.mark.parametrize("prompts", [2, 3, 10, 100])
def test_a_limit_is_where_the_p_value_equals_the_risk(kind: str, prompts: int) -> None:
    values = 5 + noise(kind, np.random.default_rng(prompts), (prompts, 12))
    for sample in (drawn(values), prompt_means(values[:, None], lowest=values.min(axis=0) - 1)):
        for risk in (0.3, 0.01):
            low = lower_limits(sample, risk)
            at = [p_values(sample[[k]], risk, low[k])[0] for k in range(12)]
            assert at == pytest.approx([risk] * 12, rel=0.02)


def test_an_upper_limit_is_minus_the_lower_one_of_the_negated() -> None:
    values = noise("exponential", np.random.default_rng(0), (9, 2, 5))
    sample, negated = prompt_means(values, lowest=-1.5), prompt_means(-values, highest=1.5)
    np.testing.assert_allclose(upper_limits(sample, RISK), -lower_limits(negated, RISK))
    np.testing.assert_allclose(lower_limits(sample, RISK), -upper_limits(negated, RISK))
    assert (lower_limits(sample, RISK) < upper_limits(sample, RISK)).all()


@pytest.mark.parametrize("prompts", [2, 3, 6, 20])
@pytest.mark.parametrize("kind", ["normal", "exponential", "mirrored"])
@pytest.mark.parametrize("seeds", [1, 4])
def test_a_true_mean_is_outside_a_limit_as_seldom_as_claimed(prompts: int, kind: str, seeds: int) -> None:
    """Prompts differ by this kind, and images of a prompt as much again."""
    runs, rng = 600, np.random.default_rng([prompts, seeds])
    values = noise(kind, rng, (prompts, 1, runs)) + (rng.normal(size=(prompts, seeds, runs)) if seeds > 1 else 0)
    assert np.mean(p_values(prompt_means(values), RISK) <= RISK) <= share_above(RISK, runs)


@pytest.mark.parametrize("prompts", [3, 10, 30])
@pytest.mark.parametrize("truth", [0.6, 0.95])
def test_a_true_share_is_outside_a_limit_as_seldom_as_claimed(prompts: int, truth: float) -> None:
    """Counts of one image a prompt, of four images that don't, and of five levels."""
    runs, rng = 350, np.random.default_rng(prompts)
    alike = rng.random((prompts, 1, runs)) < truth
    apart = rng.random((prompts, 4, runs)) < truth
    levels = rng.binomial(4, truth, size=(prompts, 1, runs)) / 4
    for values in (alike, apart, levels):
        for own, mean in ((values.astype(float), truth), (1.0 - values, 1 - truth)):
            p = p_values(prompt_means(np.asarray(own, dtype=float), lowest=0.0, highest=1.0), RISK, mean)
            assert np.mean(p <= RISK) <= share_above(RISK, runs)


def test_few_prompts_cost_width_and_many_hardly_any() -> None:
    """A third of the power of Student's test, which knows that values are normal, at 5 prompts; five sixths at 40."""
    rng, power = np.random.default_rng(0), {}
    for prompts in (5, 40):
        values = rng.normal(size=(prompts, 600)) + 3 / np.sqrt(prompts)
        ours = np.mean(p_values(drawn(values), RISK) <= RISK)
        theirs: Any = ttest_1samp(values, 0, alternative="greater")
        power[prompts] = ours / np.mean(theirs.pvalue <= RISK)
    assert power[5] > 1 / 3
    assert power[40] > 5 / 6


def test_a_bound_that_is_known_narrows_and_is_never_passed() -> None:
    values = np.random.default_rng(1).exponential(size=(6, 8)) + 0.1
    unbounded, bounded = (prompt_means(values[:, None], lowest=lowest) for lowest in (np.nan, 0.0))
    low = lower_limits(bounded, 0.01)
    assert (low > lower_limits(unbounded, 0.01)).all()
    assert (low > 0).all()


@pytest.mark.parametrize("prompts", [2, 5, 30])
def test_less_risk_and_fewer_prompts_never_narrow(prompts: int) -> None:
    sample = drawn(np.random.default_rng(prompts).normal(size=(prompts, 20)))
    lows = np.stack([lower_limits(sample, risk) for risk in (0.001, 0.01, 0.05, 0.2, 0.4)])
    assert (np.diff(lows, axis=0) > 0).all()
    again = dataclasses.replace(sample, means=np.tile(sample.means, (2, 1)))
    assert (lower_limits(again, RISK) > lower_limits(sample, RISK)).all()


@pytest.mark.parametrize("bound", [np.nan, -4.0])
def test_order_shift_and_scale_change_nothing_else(bound: float) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(7, 3, 6))
    low = lower_limits(prompt_means(values, lowest=bound), RISK)
    mixed = values[rng.permutation(7)][:, rng.permutation(3)]
    np.testing.assert_allclose(lower_limits(prompt_means(mixed, lowest=bound), RISK), low)
    moved = prompt_means(100 + 7 * values, lowest=100 + 7 * bound)
    np.testing.assert_allclose(lower_limits(moved, RISK), 100 + 7 * low, rtol=1e-6)


def test_a_gap_is_as_if_the_image_had_not_been_drawn() -> None:
    rng = np.random.default_rng(3)
    whole, gaps = rng.normal(size=(8, 2, 2)), np.full((8, 2, 2), np.nan)
    gaps[:5, :, 0], gaps[:, 0, 1] = whole[:5, :, 0], whole[:, 0, 1]
    low, p = lower_limits(prompt_means(gaps), RISK), p_values(prompt_means(gaps), RISK)
    for column, own in enumerate((whole[:5, :, [0]], whole[:, :1, [1]])):
        assert low[column] == pytest.approx(lower_limits(prompt_means(own), RISK)[0])
        assert p[column] == pytest.approx(p_values(prompt_means(own), RISK)[0])


@pytest.mark.parametrize("prompts", [0, 1])
def test_fewer_than_two_prompts_show_nothing(prompts: int) -> None:
    values = np.full((4, 1, 1), np.nan)
    values[:prompts] = 3.0
    sample = prompt_means(values)
    assert (lower_limits(sample, RISK)[0], upper_limits(sample, RISK)[0]) == (-np.inf, np.inf)
    assert p_values(sample, RISK)[0] == 1


def test_prompts_that_happen_to_agree_are_no_surer_than_their_seeds() -> None:
    """Both prompts average 1, of images that are 2 apart."""
    values = np.array([[0.0, 2.0], [2.0, 0.0]])[:, :, None]
    sample = prompt_means(values)
    assert sample.scale[0] == pytest.approx(1.0)  # sqrt(2) between images, over sqrt(2) images
    assert upper_limits(sample, 0.2)[0] - lower_limits(sample, 0.2)[0] > 2


def test_spread_is_between_prompts_and_of_the_lower_side_where_that_is_longer() -> None:
    columns = [[-6.0, 1.0, 2.0, 3.0], [6.0, -1.0, -2.0, -3.0], [1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]]
    sample = drawn(np.array(columns).T)
    np.testing.assert_allclose(sample.centre, 0)
    np.testing.assert_allclose(sample.scale, np.sqrt(np.array([50, 50, 2, 2]) / 3))
    np.testing.assert_allclose(sample.scale_below, np.sqrt(2 * np.array([36, 14, 1, 1]) / 3))  # those below 0 twice
    np.testing.assert_allclose((-sample).scale, sample.scale)
    np.testing.assert_allclose((-sample).scale_below[:2], sample.scale_below[1::-1])
    assert not sample.tied.any()
    long, short = lower_limits(sample, RISK)[:2]
    assert long < short


@pytest.mark.parametrize("change", [0.0, 0.1, -1e6])
def test_prompts_that_agree_but_for_rounding_are_tied(change: float) -> None:
    levels = 100 * np.random.default_rng(0).normal(size=(10, 1, 2))
    level = levels + change - levels if change else 0 * levels
    assert drawn(level[:, 0]).tied.all()
    level[0, 0, 0] += 1e-3 * (abs(change) or 1)
    assert drawn(level[:, 0]).tied.tolist() == [False, True]
    assert prompt_means(np.full((3, 1, 1), np.nan)).tied.all()


def test_prompts_are_the_clusters_however_many_seeds_repeat_them() -> None:
    values = np.random.default_rng(4).normal(size=(8, 1, 5))
    once, often = (prompt_means(np.tile(values, (1, copies, 1))) for copies in (1, 9))
    np.testing.assert_allclose(lower_limits(often, RISK), lower_limits(once, RISK))
