"""Coefficients against the schedulers' own steps, and error correction against an error that is known."""

from typing import Any

import pytest
import torch
from tests.laws import schedules
from torch import Tensor

from deradiff.acceleration.solver import LinearExtrapolator, SolverCoefficients, level_now, solver_coefficients
from deradiff.errors import RealignError
from deradiff.predict import convert

KINDS = {"DDIM": "epsilon", "DDIM zero terminal": "epsilon", "flow Euler shift": "flow_prediction"}
KINDS |= {"Euler ancestral": "sample"}
SEVERAL_CALLS_A_STEP = ("Heun", "Heun Karras", "KDPM2", "KDPM2 ancestral", "PNDM", "PNDM skip", "flow Heun")
READABLE = [name for name in schedules.EVERY if name not in SEVERAL_CALLS_A_STEP]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("records", "now"), [((3,), 6), ((3, 2), 4), ((3, 2), 7), ((4, 1), 8), ((3, 2), 9)])
def test_payback_undoes_the_error_of_extrapolation(name: str, records: tuple[int, ...], now: int) -> None:
    solver, extrapolator = solver_coefficients(schedules.fresh(name)), LinearExtrapolator()
    for step in reversed(records):
        extrapolator.record(step, _smooth(solver, step, len(records)))
    z = torch.tensor(0.3, dtype=torch.float64)
    own = z
    for step in range(records[0] + 1, now + 1):
        true, guess = _smooth(solver, step, len(records)), extrapolator.extrapolated(solver, step)
        assert (guess - true).abs() > 1e-3
        answer = guess if step < now else true + extrapolator.error_correction(solver, now) * (true - guess)
        z, own = (solver.decay[step] * z + solver.weight[step] * f for z, f in ((z, true), (own, answer)))
    torch.testing.assert_close(own, z, rtol=1e-9, atol=1e-9)


def _smooth(solver: SolverCoefficients, step: int, degree: int) -> Tensor:
    """Of a degree too high for as many records, in the solver's time."""
    t = torch.tensor(solver.time[step], dtype=torch.float64)
    return 1 + 2 * t + 0.5 * t**degree


@pytest.mark.parametrize("name", KINDS)
def test_a_step_of_the_scheduler_keeps_and_weighs_as_the_clock_says(name: str) -> None:
    scheduler = schedules.fresh(name)
    solver = solver_coefficients(scheduler)
    assert solver.form == KINDS[name]
    sample = schedules.randn(1, 4, 2, 2) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for step, t in enumerate(scheduler.timesteps):
        x_t = schedules.network_input(scheduler, sample, t)
        output = 0.1 * schedules.randn(1, 4, 2, 2, seed=step)
        after, level = _mean_step(scheduler, output, t, sample), solver.levels[step]
        if level.alpha > 0:  # z is infinite at pure noise
            value = convert(output, x_t, level, solver.source, solver.form)
            expected = solver.decay[step] * _z(x_t, level, solver) + _sign(solver) * solver.weight[step] * value
            reached = after if schedules.keeps_ratio(scheduler) else _z(after, solver.levels[step + 1], solver)
            torch.testing.assert_close(reached, expected, rtol=1e-4, atol=1e-5)
        sample = after


def _mean_step(scheduler: Any, output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
    """The step without its noise: the mean of two steps whose noises cancel."""
    if "Ancestral" not in type(scheduler).__name__:
        return schedules.step(scheduler, output, t, sample)
    up = scheduler.sigmas[scheduler.index_for_timestep(t) + 1].square()
    before = scheduler.sigmas[scheduler.index_for_timestep(t)].square()
    noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(0), dtype=output.dtype)
    stepped = scheduler.step(output, t, sample, generator=torch.Generator().manual_seed(0)).prev_sample
    return stepped - (up * (before - up) / before).sqrt() * noise


def _z(x_t: Tensor, level: Any, solver: SolverCoefficients) -> Tensor:
    return x_t if solver.form == "flow_prediction" else x_t / level.alpha


def _sign(solver: SolverCoefficients) -> int:
    return 1 if solver.form == "sample" else -1


@pytest.mark.parametrize("name", READABLE)
def test_the_step_of_a_network_call_is_found(name: str) -> None:
    scheduler = schedules.fresh(name)
    solver, sample, found = solver_coefficients(scheduler), schedules.randn(1, 4, 2, 2), list[int]()
    for t in schedules.timesteps_of(scheduler):
        found.append(solver.step_of(level_now(scheduler, t)))
        schedules.network_input(scheduler, sample, t)
        sample = schedules.step(scheduler, sample, t, sample)
    assert found == list(range(len(solver)))


@pytest.mark.parametrize("name", SEVERAL_CALLS_A_STEP)
def test_schedulers_with_several_calls_a_step_are_refused(name: str) -> None:
    with pytest.raises(RealignError, match="several times a step"):
        solver_coefficients(schedules.fresh(name))


@pytest.mark.parametrize("name", READABLE)
def test_time_is_monotone_and_every_step_weighs(name: str) -> None:
    solver = solver_coefficients(schedules.fresh(name))
    gaps = torch.tensor(solver.time).diff()
    assert (gaps > 0).all() or (gaps < 0).all()
    assert all(weight > 0 for weight in solver.weight)
    assert all(0 <= decay <= 1 for decay in solver.decay)
