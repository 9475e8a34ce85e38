from typing import Any

import pytest
import torch

from deradiff.errors import ScheduleError
from deradiff.noise import NoiseLevel, is_flow, noise_at, noise_levels, prediction_type
from deradiff.predict import convert

from . import schedules
from .schedules import build, randn

every = pytest.mark.parametrize("name", schedules.EVERY)


@every
def test_add_noise_of_the_scheduler_is_alpha_x0_plus_sigma_eps(name: str) -> None:
    scheduler = schedules.fresh(name)
    levels, timesteps = noise_levels(scheduler), schedules.timesteps_of(scheduler)
    x_0, eps = randn(1, 4, 4, 4, seed=1), randn(1, 4, 4, 4, seed=2)
    # KDPM2's own add_noise knows no half-way levels; the steps below check those
    for k in range(0, len(timesteps), 2 if name.startswith("KDPM2") else 1):
        fresh = schedules.fresh(name)
        noised = schedules.add_noise(fresh, x_0, eps, timesteps[k : k + 1])
        x_t = schedules.network_input(fresh, noised, timesteps[k])
        torch.testing.assert_close(x_t, levels.alpha[k] * x_0 + levels.sigma[k] * eps, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", schedules.DETERMINISTIC)
def test_steps_with_the_exact_prediction_visit_the_levels(name: str) -> None:
    scheduler = schedules.fresh(name)
    levels, timesteps = noise_levels(scheduler), scheduler.timesteps
    x_0, eps = randn(1, 4, 8, 8, seed=1), randn(1, 4, 8, 8, seed=2)
    assert len(levels.alpha) == len(timesteps) + 1
    sample = _noised(levels[0], x_0, eps, scheduler)
    for k, t in enumerate(timesteps):
        x_t = schedules.network_input(scheduler, sample, t)
        torch.testing.assert_close(x_t, levels.alpha[k] * x_0 + levels.sigma[k] * eps, atol=1e-4, rtol=1e-4)
        sample = schedules.step(scheduler, _exact(levels[k], x_0, eps, scheduler), t, sample)
    torch.testing.assert_close(sample, _noised(levels[-1], x_0, eps, scheduler), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", schedules.STOCHASTIC)
def test_stochastic_steps_keep_the_noise_at_the_levels(name: str) -> None:
    torch.manual_seed(0)
    scheduler = schedules.fresh(name)
    levels, timesteps = noise_levels(scheduler), schedules.timesteps_of(scheduler)
    assert len(levels.alpha) == len(timesteps) + 1
    x_0 = randn(1, 4, 64, 64, seed=1, dtype=torch.float32)
    sample = _noised(levels[0], x_0, randn(1, 4, 64, 64, seed=2, dtype=torch.float32), scheduler)
    for k, t in enumerate(timesteps):
        x_t = schedules.network_input(scheduler, sample, t)
        alpha, sigma = levels.alpha[k].float(), levels.sigma[k].float()
        eps = (x_t - alpha * x_0) / sigma
        # 16,384 draws: their variance is 1 to 1.1% (one standard error)
        assert eps.var().item() == pytest.approx(1, abs=0.05), f"step {k}"
        assert abs((eps * x_0).mean().item()) < 0.04, f"step {k}"
        sample = schedules.step(scheduler, _exact(levels[k], x_0, eps, scheduler), t, sample)
    if name == "Würstchen":  # its last step leaves the noise of its last level out
        return
    residual = sample - levels.alpha[-1].float() * x_0
    assert residual.square().mean().sqrt().item() == pytest.approx(float(levels.sigma[-1]), rel=0.03, abs=1e-3)


def _noised(level: NoiseLevel, x_0: torch.Tensor, eps: torch.Tensor, scheduler: Any) -> torch.Tensor:
    x_t = level.alpha * x_0 + level.sigma * eps
    return (x_t / level.alpha if schedules.keeps_ratio(scheduler) else x_t).to(x_0.dtype)


def _exact(level: NoiseLevel, x_0: torch.Tensor, eps: torch.Tensor, scheduler: Any) -> torch.Tensor:
    x_t = level.alpha * x_0 + level.sigma * eps
    return convert(x_0, x_t, level, "sample", prediction_type(scheduler)).to(x_0.dtype)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_level_of_a_set_timestep_is_its_entry(name: str, dtype: torch.dtype) -> None:
    scheduler = schedules.fresh(name)
    levels, timesteps = noise_levels(scheduler), schedules.timesteps_of(scheduler)
    # as the first time a flow network is given, 1 is t / 1000: see the next law
    plain = torch.tensor([k for k, t in enumerate(timesteps) if not (is_flow(scheduler) and t == 1)])
    found = noise_at(scheduler, timesteps[plain].to(dtype))
    torch.testing.assert_close(found.alpha, levels.alpha[plain], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sigma, levels.sigma[plain], atol=1e-6, rtol=1e-5)
    assert noise_at(scheduler, float(timesteps[0])).alpha.shape == ()


@pytest.mark.parametrize("name", [name for name in schedules.EVERY if "flow" in name])
def test_flow_networks_are_given_their_time_in_several_scales(name: str) -> None:
    scheduler = schedules.fresh(name)
    x_t = randn(1, 4, 4, 4)
    levels = noise_levels(scheduler)
    for k, t in enumerate(scheduler.timesteps):
        for given in (t, t / 1000, (t / 1000).bfloat16(), 1 - t / 1000):
            torch.testing.assert_close(noise_at(scheduler, given).sigma, levels.sigma[k])
        x_t = schedules.step(scheduler, x_t, t, x_t)


def test_a_run_that_begins_half_way_stands_at_its_first_step() -> None:
    scheduler = schedules.fresh("flow Euler")
    scheduler.set_begin_index(3)
    level = noise_at(scheduler, 1 - scheduler.timesteps[3] / 1000)
    torch.testing.assert_close(level.sigma, noise_levels(scheduler).sigma[3])


def test_repeated_timesteps_are_distinguished_by_the_step_at_which_the_scheduler_stands() -> None:
    scheduler = build("DPMSolverMultistepScheduler", **schedules.STABLE_DIFFUSION, use_karras_sigmas=True)
    scheduler.set_timesteps(60)
    timesteps, levels, sample = scheduler.timesteps, noise_levels(scheduler), randn(1, 4, 4, 4)
    assert len(timesteps.unique()) < len(timesteps)
    for k, t in enumerate(timesteps):
        assert noise_at(scheduler, t).sigma == levels.sigma[k]
        sample = schedules.step(scheduler, sample, t, sample)


@every
def test_off_the_set_timesteps_the_training_table_is_read(name: str) -> None:
    scheduler = schedules.fresh(name)
    if hasattr(scheduler, "_alpha_cumprod"):
        level = noise_at(scheduler, 0.35)
        expected = scheduler._alpha_cumprod(torch.tensor([0.35]), torch.device("cpu")).double()[0]
        torch.testing.assert_close(level.alpha.square(), expected)
        return
    level = noise_at(scheduler, torch.tensor([[137, 138]]))
    assert level.alpha.shape == (1, 2)
    if is_flow(scheduler):
        torch.testing.assert_close(level.sigma, torch.tensor([[0.137, 0.138]], dtype=torch.float64))
        torch.testing.assert_close(level.alpha + level.sigma, torch.ones_like(level.alpha))
    else:
        torch.testing.assert_close(level.alpha.square()[0], scheduler.alphas_cumprod[137:139].double())
        between = noise_at(scheduler, 137.5)
        assert level.sigma[0, 0] < between.sigma < level.sigma[0, 1]


def test_snr_at_the_ends() -> None:
    level = NoiseLevel(torch.tensor([0.0, 0.6, 1.0]), torch.tensor([1.0, 0.8, 0.0]))
    torch.testing.assert_close(level.snr, torch.tensor([0.0, 0.5625, torch.inf]))
    torch.testing.assert_close(level.log_snr, level.snr.log())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("DDIMScheduler", {}, "epsilon"),
        ("EulerDiscreteScheduler", {"prediction_type": "sample"}, "sample"),
        ("EulerDiscreteScheduler", {"prediction_type": "original_sample"}, "sample"),  # its older name
        ("DDPMScheduler", {"prediction_type": "v_prediction"}, "v_prediction"),
        ("FlowMatchEulerDiscreteScheduler", {}, "flow_prediction"),
        ("UniPCMultistepScheduler", schedules.FLOW, "flow_prediction"),
        ("DDPMWuerstchenScheduler", {}, "epsilon"),
    ],
)
def test_prediction_types(name: str, options: dict[str, Any], expected: str) -> None:
    assert prediction_type(build(name, **options)) == expected


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("EDMEulerScheduler", {}, "sigma_data"),
        ("EDMDPMSolverMultistepScheduler", {}, "sigma_data"),
        ("CMStochasticIterativeScheduler", {}, "sigma_data"),
        ("IPNDMScheduler", {}, "alphas_cumprod"),
        ("DDIMInverseScheduler", {}, "noise increases"),
        ("DPMSolverMultistepInverseScheduler", {}, "noise increases"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "flow"),
    ],
)
def test_schedules_that_cannot_be_read_are_refused_by_name(name: str, options: dict[str, Any], word: str) -> None:
    scheduler = build(name, **options)
    scheduler.set_timesteps(10)
    with pytest.raises(ScheduleError, match=f"(?s){name}.*{word}"):
        noise_levels(scheduler)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_timesteps_must_be_set(name: str) -> None:
    with pytest.raises(ScheduleError, match="set_timesteps"):
        noise_levels(build(name))


def test_an_unknown_prediction_type_is_refused() -> None:
    scheduler = build("DDIMScheduler", prediction_type="score")
    with pytest.raises(ScheduleError, match="score"):
        prediction_type(scheduler)
