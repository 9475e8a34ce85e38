"""The clock against the schedulers' own steps, and its payback against an error that is known."""

from typing import Any

import pytest
import torch
from tests.laws import schedules
from torch import Tensor

from deradiff.errors import RealignError
from deradiff.predict import convert
from deradiff.reuse.clock import Clock, clock_of, level_now
from deradiff.reuse.trail import Trail

KINDS = {"DDIM": "epsilon", "DDIM zero terminal": "epsilon", "flow Euler shift": "flow_prediction"}
KINDS |= {"Euler ancestral": "sample"}
SEVERAL_CALLS_A_STEP = ("Heun", "Heun Karras", "KDPM2", "KDPM2 ancestral", "PNDM", "PNDM skip", "flow Heun")
READABLE = [name for name in schedules.EVERY if name not in SEVERAL_CALLS_A_STEP]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("records", "now"), [((3,), 6), ((3, 2), 4), ((3, 2), 7), ((4, 1), 8), ((3, 2), 9)])
def test_payback_undoes_the_error_of_extrapolation(name: str, records: tuple[int, ...], now: int) -> None:
    clock, trail = clock_of(schedules.fresh(name)), Trail()
    for step in reversed(records):
        trail.record(step, _smooth(clock, step, len(records)))
    z = torch.tensor(0.3, dtype=torch.float64)
    own = z
    for step in range(records[0] + 1, now + 1):
        true, guess = _smooth(clock, step, len(records)), trail.extrapolated(clock, step)
        assert (guess - true).abs() > 1e-3
        answer = guess if step < now else true + trail.payback(clock, now) * (true - guess)
        z, own = (clock.keep[step] * z + clock.weight[step] * f for z, f in ((z, true), (own, answer)))
    torch.testing.assert_close(own, z, rtol=1e-9, atol=1e-9)


def _smooth(clock: Clock, step: int, degree: int) -> Tensor:
    """Of a degree too high for as many records, in the clock's time."""
    t = torch.tensor(clock.time[step], dtype=torch.float64)
    return 1 + 2 * t + 0.5 * t**degree


@pytest.mark.parametrize("name", KINDS)
def test_a_step_of_the_scheduler_keeps_and_weighs_as_the_clock_says(name: str) -> None:
    scheduler = schedules.fresh(name)
    clock = clock_of(scheduler)
    assert clock.form == KINDS[name]
    sample = schedules.randn(1, 4, 2, 2) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for step, t in enumerate(scheduler.timesteps):
        x_t = schedules.network_input(scheduler, sample, t)
        output = 0.1 * schedules.randn(1, 4, 2, 2, seed=step)
        after, level = _mean_step(scheduler, output, t, sample), clock.levels[step]
        if level.alpha > 0:  # z is infinite at pure noise
            value = convert(output, x_t, level, clock.source, clock.form)
            expected = clock.keep[step] * _z(x_t, level, clock) + _sign(clock) * clock.weight[step] * value
            reached = after if schedules.keeps_ratio(scheduler) else _z(after, clock.levels[step + 1], clock)
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


def _z(x_t: Tensor, level: Any, clock: Clock) -> Tensor:
    return x_t if clock.form == "flow_prediction" else x_t / level.alpha


def _sign(clock: Clock) -> int:
    return 1 if clock.form == "sample" else -1


@pytest.mark.parametrize("name", READABLE)
def test_the_step_of_a_network_call_is_found(name: str) -> None:
    scheduler = schedules.fresh(name)
    clock, sample, found = clock_of(scheduler), schedules.randn(1, 4, 2, 2), list[int]()
    for t in schedules.timesteps_of(scheduler):
        found.append(clock.step_of(level_now(scheduler, t)))
        schedules.network_input(scheduler, sample, t)
        sample = schedules.step(scheduler, sample, t, sample)
    assert found == list(range(len(clock)))


@pytest.mark.parametrize("name", SEVERAL_CALLS_A_STEP)
def test_schedulers_with_several_calls_a_step_are_refused(name: str) -> None:
    with pytest.raises(RealignError, match="several times a step"):
        clock_of(schedules.fresh(name))


@pytest.mark.parametrize("name", READABLE)
def test_time_is_monotone_and_every_step_weighs(name: str) -> None:
    clock = clock_of(schedules.fresh(name))
    gaps = torch.tensor(clock.time).diff()
    assert (gaps > 0).all() or (gaps < 0).all()
    assert all(weight > 0 for weight in clock.weight)
    assert all(0 <= keep <= 1 for keep in clock.keep)
