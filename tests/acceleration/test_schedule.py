"""Which steps are computed."""

from typing import Any

import pytest
import torch
from tests.laws import schedules

from deradiff.acceleration import Adaptive
from deradiff.acceleration.adaptive import computed_steps
from deradiff.acceleration.solver import solver_coefficients


def _long_ddim() -> Any:
    scheduler = schedules.build("DDIMScheduler")
    scheduler.set_timesteps(50)
    return scheduler


@pytest.mark.parametrize("steps", [4, 5, 10, 20, 50, 100, 1000])
def test_as_many_steps_as_asked_for_with_both_ends(steps: int) -> None:
    for count in {3, 4, 5, steps // 3, steps // 2, steps - 1} - set(range(3)):
        chosen = computed_steps(steps, count)
        assert chosen == sorted(set(chosen))
        assert chosen[:2] == [0, 1]
        assert chosen[-1] == steps - 1
        assert len(chosen) == min(count, steps), (steps, count)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_all_steps_where_there_are_no_more(steps: int) -> None:
    assert computed_steps(steps, max(steps, 3)) == computed_steps(steps, 100) == list(range(steps))


def test_steps_are_closer_together_at_either_end() -> None:
    gaps = torch.tensor(computed_steps(100, 25)[2:]).diff()
    assert gaps[:4].max() < gaps[8:14].min() > gaps[-4:].max()


def test_fewer_steps_at_a_larger_tolerance_and_all_where_noise_is_drawn() -> None:
    solver = solver_coefficients(_long_ddim())
    counts = [len(Adaptive(tolerance).steps(solver)) for tolerance in (0.3, 0.1, 0.01, 0.001, 1e-5)]
    assert counts == sorted(counts)
    assert counts[0] < 6 < counts[2] < 14
    assert counts[-1] == len(solver)
