"""Stepping down: never less is found than in one step, and no more of it is false."""

import numpy as np
from numpy.typing import NDArray

from deradiff.recommend.flips import step_down, t_values, tosses


def single_step(columns: NDArray[np.float64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = t_values(columns, signs).max(axis=1, keepdims=True)
    return (1 + (largest >= t_values(columns)).sum(axis=0)) / (1 + len(signs))


def test_stepping_down_finds_what_sure_falls_would_hide() -> None:
    """Twenty columns surely rise, and one a little: held against them too, it goes unseen half as often again."""
    signs, found = tosses(12), np.zeros(2)
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=(12, 21))
        columns = noise + np.where(np.arange(21) < 20, 5, 0.7)
        down, single = step_down(columns, signs), single_step(columns, signs)
        assert (down <= single).all()
        assert down.min() == single.min()
        found += down[-1] <= 0.05, single[-1] <= 0.05
    assert found[0] >= 1.4 * found[1]


def test_stepping_down_raises_no_more_false_alarms() -> None:
    """Some columns surely rise, ten don't: what is said of the ten is false one time in twenty."""
    runs, signs = 400, tosses(10)
    false = 0
    for seed in range(runs):
        columns = np.random.default_rng(seed).standard_t(4, size=(10, 20)) + np.where(np.arange(20) < 10, 8, 0)
        false += bool((step_down(columns, signs)[10:] <= 0.05).any())
    assert false / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_p_values_follow_t_and_know_no_order_of_columns() -> None:
    columns = np.random.default_rng(0).normal(size=(10, 30)) + np.linspace(-1, 1, 30)
    p_values, order = step_down(columns, tosses(10)), np.random.default_rng(1).permutation(30)
    assert (np.diff(p_values[t_values(columns).argsort()]) <= 0).all()
    np.testing.assert_array_equal(step_down(columns[:, order], tosses(10)), p_values[order])
