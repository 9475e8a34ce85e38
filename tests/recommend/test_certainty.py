"""How sure a choice is: resamples, runner-up, the Pareto set, the grid, win rates."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest
from tests.recommend.subject import LAMS, RISE, results

from deradiff.recommend import recommend
from deradiff.recommend.intervals import win_rate
from deradiff.recommend.resample import draw

PEAK = -((np.array(LAMS) - 1.5) ** 2)


def test_the_draws_have_the_variance_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=12)
    spread = (draw(12, draws=200_000) @ values).std()
    student = 2.201 / 1.960  # 11 degrees of freedom
    assert spread == pytest.approx(student * values.std(ddof=1) / np.sqrt(12), rel=0.02)


def test_a_clear_peak_is_sure_and_a_flat_one_is_not() -> None:
    clear = recommend(results({"proxy": PEAK}, noise=0.001), objective="proxy")
    assert (clear.lam, clear.sure, clear.interval, clear.runner_up) == (1.5, 1.0, (1.5, 1.5), None)
    flat = recommend(results({"proxy": 0 * PEAK}), objective="proxy")
    assert flat.sure < 0.9
    assert flat.interval[0] < flat.interval[1]
    assert flat.runner_up not in (None, flat.lam)


def test_more_prompts_are_asked_for_the_closer_the_runner_up() -> None:
    """Of two lams 0.1 and 0.4 noise apart, the closer pair takes many times the prompts."""
    needed = []
    for gap in (0.01, 0.04):
        tables = [
            results({"r": np.array([0, 1.0, 1 - gap])}, lams=(0.0, 1.0, 2.0), prompts=40, noise=0.05, rng_seed=seed)
            for seed in range(40)
        ]
        choices = [recommend(table, objective="r") for table in tables]
        needed.append(
            np.median([np.inf if c.prompts_needed is None else c.prompts_needed for c in choices if c.runner_up])
        )
    assert needed[0] > 3 * needed[1]


def test_the_interval_of_lam_covers_the_true_peak() -> None:
    curve = -0.2 * (np.array(LAMS) - 1) ** 2
    runs = 300
    choices = [recommend(results({"r": curve}, noise=0.3, rng_seed=seed), objective="r") for seed in range(runs)]
    covered = np.mean([choice.interval[0] <= 1 <= choice.interval[1] for choice in choices])
    assert covered >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean([choice.interval == (0, 4) for choice in choices]) < 0.2


def test_the_pareto_set_is_what_nothing_beats() -> None:
    lams = np.array(LAMS)
    table = results({"a": -((lams - 0.5) ** 2), "b": -((lams - 1.5) ** 2)}, noise=0.001)
    choice = recommend(table, objective="a,b")
    assert choice.pareto == ((0.5, 1.0), (1.0, 1.0), (1.5, 1.0))
    assert choice.lam == 1.0
    assert "0.5 (100%), 1 (100%), 1.5 (100%)" in choice.reason


def test_the_units_of_several_objectives_do_not_matter() -> None:
    lams = np.array(LAMS)
    table = results({"a": -((lams - 0.5) ** 2), "b": -((lams - 1.5) ** 2)}, noise=0.05)
    scaled = dataclasses.replace(table, scores={"a": 1000 * table.scores["a"], "b": table.scores["b"]})
    one, other = (recommend(own, objective="a,b") for own in (table, scaled))
    assert (one.lam, one.sure, one.pareto) == (other.lam, other.sure, other.pareto)


def test_below_the_reference_lams_are_reached_from_it_too() -> None:
    lams = (-3.0, -2.0, -1.0, 0.0, 1.0)
    gold = np.array([0, -1, 0, 0, 0.0])
    choice = recommend(results({"proxy": -np.array(lams), "gold": gold}, lams=lams), objective="proxy", guard="gold")
    assert choice.allowed == (False, False, True, True, True)
    assert choice.lam == -1


def test_no_lam_beyond_a_failing_one_is_taken() -> None:
    dip = np.where(np.array(LAMS) == 0.5, -1, 0)
    choice = recommend(results({"proxy": RISE, "gold": dip}), objective="proxy", guard="gold")
    assert choice.lam == 0.25
    assert choice.allowed == (True, True, False, False, False, False, False)


@pytest.mark.parametrize(
    ("curve", "lams", "wanted"),
    [
        (np.array([0, 1, 2.0]), (0.0, 0.5, 1.0), (1.5, 2.0)),
        (np.array([2, 1, 0.0]), (-1.0, 0.0, 1.0), (-3.0, -2.0)),
        (np.array([0, 2, 1.0]), (0.0, 0.5, 1.0), (0.25, 0.75)),
        (np.array([0, 2, 2.0, 1]), (0.0, 0.5, 0.6, 1.0), None),
        (np.array([0, 2, 1.0]), (0.0, 0.05, 0.1), ()),
    ],
)
def test_the_next_lams_lie_beyond_an_edge_or_between_wide_steps(
    curve: np.ndarray, lams: tuple[float, ...], wanted: tuple[float, ...] | None
) -> None:
    found = recommend(results({"r": curve}, lams=lams, noise=0.01), objective="r").next_lams
    assert found == wanted if wanted is not None else 0.55 not in found


def test_win_rates_are_clopper_pearson_where_prompts_tell_nothing_apart() -> None:
    """One image a prompt: images are the clusters."""
    wins = np.random.default_rng(0).random((50, 1)) < 0.7
    exact = binomtest(int(wins.sum()), 50).proportion_ci(0.95, "exact")
    rate = win_rate(wins.astype(float), np.full((50, 1), 0.5))
    assert (rate.mean, rate.low, rate.high) == pytest.approx((wins.mean(), exact.low, exact.high), abs=0.005)


def test_win_rates_of_alike_images_are_worth_no_more_than_their_prompts() -> None:
    once = (np.random.default_rng(0).random((30, 1)) < 0.7).astype(float)
    half = np.full((30, 1), 0.5)
    alone, repeated = win_rate(once, half), win_rate(np.tile(once, (1, 10)), np.tile(half, (1, 10)))
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high), abs=0.02)
    sure = win_rate(np.ones((5, 4)), np.zeros((5, 4)))
    assert (sure.mean, sure.high) == (1, 1)
    assert 0 < sure.low < 1


def test_an_image_against_several_trainings_is_one_trial() -> None:
    """Twelve images that win, lose, and halve their meetings with two trainings, alike in every prompt."""
    table = np.tile([1.0, -1.0, 0.0], (4, 1))
    found = win_rate(table, np.stack([np.full((4, 3), -0.5), np.full((4, 3), 0.5)]))
    known = binomtest(6, 12).proportion_ci(method="exact")
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, known.low, known.high))


def test_ties_are_half_a_win() -> None:
    even = np.zeros((4, 1))
    assert win_rate(np.array([[0.0], [0.0], [1.0], [-1.0]]), even).mean == 0.5
    assert win_rate(np.array([[0.0], [0.0], [1.0], [1.0]]), even).mean == 0.75
