"""The adaptive policy on pipelines of several kinds: exact where everything is computed, near where it isn't."""

import diffusers
import pytest
import torch
from tests.realignment.pipelines import Subject, known, subject

import deradiff
from deradiff.acceleration import Adaptive

from .sweeps import attach, error, sweep, through

LAMS = (0.0, 0.5, 1.0, 1.5)
STEPS = 10
EVERY_STEP = 1e-6
KINDS = ("sd", "sd3", "wan")
SOLVERS = {
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DDIMScheduler": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}


def run(it: Subject, steps: int = STEPS) -> torch.Tensor:
    return sweep(it, LAMS, num_inference_steps=steps)


def held(it: Subject) -> None:
    with attach(it, LAMS) as handle:
        exact = run(it)
        reference, changed = exact[:: len(LAMS)], exact[len(LAMS) - 1 :: len(LAMS)]
        assert error(changed, reference).min() > 0.01  # lam matters
        tight, budget = through(handle, Adaptive(EVERY_STEP), lambda: run(it), lams=len(LAMS))
        assert error(tight, exact).max() < 1e-3
        near, fewer = through(handle, Adaptive(0.05), lambda: run(it), lams=len(LAMS))
        assert error(near, exact).mean() < 0.2  # networks of random weights are rough
        assert fewer.nfe < 0.85 * budget.nfe


@pytest.mark.parametrize("name", KINDS)
def test_pipelines(name: str) -> None:
    held(known(name))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name: str) -> None:
    it = subject("sd_v" if SOLVERS[name] else "sd")  # eps-prediction knows nothing of x_0 where no signal is left
    it.pipe.scheduler = getattr(diffusers, name).from_config(it.pipe.scheduler.config, **SOLVERS[name])
    held(it)


def test_one_image_at_one_lam_through_realign() -> None:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=0.7) as handle:
        exact = it.run(num_inference_steps=STEPS)
    calls: list[int] = []
    hook = it.pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    with deradiff.realign(it.pipe, it.anchors, lam=0.7, policy=Adaptive(0.05)) as handle:
        assert error(it.run(num_inference_steps=STEPS), exact).max() < 0.1
        assert len(calls) < 0.75 * 2 * STEPS
        calls.clear()
        handle.lam = 0.0
        assert error(it.run(num_inference_steps=STEPS), it.run(num_inference_steps=STEPS)).max() == 0
        assert len(calls) < 0.75 * 2 * STEPS
    hook.remove()
    assert torch.equal(it.run(), it.plain)
