"""Learned variances: one step's mean and variance against the mixture of Gaussians, by the scheduler's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tests.zoo import ZOO

import deradiff
from deradiff.errors import LamError

from .pipelines import by_hand, known, near, subject

LEARNED = [name for name in ("deepfloyd", "kandinsky") if name in ZOO]


def kernel(scheduler: Any, output: torch.Tensor, t: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the step's Gaussian (Ho et al. 2020, eq. 7; Nichol & Dhariwal 2021, eq. 15)."""
    previous = int(scheduler.previous_timestep(t))
    a_t, a_s = scheduler.alphas_cumprod[t].double(), scheduler.alphas_cumprod[previous].double()
    alpha = a_t / a_s
    eps, fraction = output.double().chunk(2, 1)
    x_0 = (x.double() - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    mean = (a_s.sqrt() * (1 - alpha) * x_0 + alpha.sqrt() * (1 - a_s) * x.double()) / (1 - a_t)
    low, high = ((1 - a_s) / (1 - a_t) * (1 - alpha)).log(), (1 - alpha).log()
    return mean, ((fraction + 1) / 2 * high + (1 - fraction) / 2 * low).exp()


@pytest.mark.parametrize("lam", [0.5, [0.0, 0.3], [1.0, 1.005]])
@pytest.mark.parametrize("name", LEARNED)
def test_one_step_is_the_geometric_mixture(name: str, lam: Any) -> None:
    it = known(name)
    unet, scheduler = it.pipe.unet, it.pipe.scheduler
    scheduler.set_timesteps(4)
    t, seen = int(scheduler.timesteps[1]), []
    with deradiff.realign(it.pipe, it.anchors, lam=0.0) as handle:
        hook = unet.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
        it.run(guidance_scale=1.0)
        hook.remove()
        args, kwargs = seen[0]
        x_t = (args or [kwargs["sample"]])[0]
        x = x_t[:, : unet.config.out_channels // 2]
        kwargs = {key: value for key, value in kwargs.items() if key not in ("sample", "timestep")}
        outputs = []
        for value in (0.0, 1.0, lam):
            handle.lam = value
            outputs.append(unet(x_t, t, *args[2:], **{**kwargs, "return_dict": False})[0].detach())
    (m_ref, v_ref), (m_al, v_al), (mean, variance) = (kernel(scheduler, output, t, x) for output in outputs)
    weight = torch.as_tensor(lam, dtype=torch.float64).reshape(-1, 1, 1, 1)
    precision = (1 - weight) / v_ref + weight / v_al
    assert torch.allclose(variance, 1 / precision, rtol=1e-4)
    assert torch.allclose(mean, ((1 - weight) * m_ref / v_ref + weight * m_al / v_al) / precision, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(v_ref, v_al, rtol=1e-2)


@pytest.mark.parametrize("name", LEARNED)
def test_a_lam_without_a_mixture_is_refused_with_its_bound(name: str) -> None:
    it = known(name)
    with deradiff.realign(it.pipe, it.anchors, lam=50.0), pytest.raises(LamError, match="strictly between"):
        it.run()
    both = {"a": it.anchors["unet"], "b": it.anchors["unet"]}
    with deradiff.realign(it.pipe, both, lam={"a": 0.5, "b": 0.5}), pytest.raises(LamError, match="one anchor"):
        it.run()
    assert torch.equal(it.run(), it.plain)


def test_a_solver_that_ignores_the_variance_takes_a_plain_lerp() -> None:
    it = subject("deepfloyd")
    it.pipe.scheduler = DPMSolverMultistepScheduler.from_config(it.pipe.scheduler.config)
    with by_hand(it.pipe, it.anchors, lambda: 2.0):
        expected = it.run()
    with deradiff.realign(it.pipe, it.anchors, lam=2.0):
        assert near(it.run(), expected)
