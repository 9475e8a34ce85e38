"""Path KL against the Gaussian KL of the scheduler's own kernels, computed by hand from what the networks predict."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from tests.zoo import ZOO, anchor_of
from torch import Tensor

import deradiff
from deradiff.divergence import gaussian_kl
from deradiff.realignment import Step
from deradiff.sweep.path import PathKL

STEPS = 4


class ByHand:
    """Sums the KL of Euler-ancestral's kernels, whose means and variances follow from sigma before and after."""

    def __init__(self, pipe: Any, path: PathKL, guidance: float) -> None:
        self.pipe, self.path, self.guidance = pipe, path, guidance
        self.total = torch.zeros(2, dtype=torch.float64)
        self.calls = 0

    def __call__(self, step: Step) -> None:
        self.calls += 1
        if self.calls == STEPS:  # the last kernel is a point: its KL is a convention, not a law
            return
        self.path(step)
        before, after = self.pipe.scheduler.sigmas[self.calls - 1 : self.calls + 1].double()
        up = (after**2 * (before**2 - after**2) / before**2).sqrt()
        down = (after**2 - up**2).sqrt()
        means = [(down - before) * self.guided(step.predictions[model]) for model in (0, 1)]
        lam = step.lams[0]
        mixed = means[0] + lam * (means[1] - means[0])
        self.total += gaussian_kl(mixed, (up**2).expand_as(mixed), means[0], (up**2).expand_as(mixed))

    def guided(self, output: Any) -> Tensor:
        eps = output[0].double()
        if self.guidance == 1:
            return eps
        unconditional, conditional = eps.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("lam", [0.5, 1.0, 2.0])
def test_path_kl_is_the_kl_of_the_kernels(lam: float, guidance: float) -> None:
    pipe: Any = ZOO["sd"].build()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    settings = {**ZOO["sd"].call(2), "num_inference_steps": STEPS, "guidance_scale": guidance}
    with deradiff.realign(pipe, anchor_of(pipe.unet), lam) as handle:
        by_hand = ByHand(pipe, PathKL(pipe, 2), guidance)
        with handle.observing(by_hand):
            pipe(**settings, generator=[torch.Generator().manual_seed(seed) for seed in range(2)])
    assert by_hand.calls == STEPS
    torch.testing.assert_close(torch.tensor(by_hand.path.values()).double(), by_hand.total, rtol=1e-4, atol=0)


def test_path_kl_is_unknown_where_each_branch_of_guidance_is_a_call_of_its_own() -> None:
    specimen = ZOO["wan"]
    pipe: Any = specimen.build()
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    handle = deradiff.realign(pipe, anchor_of(pipe.transformer), 0.5)
    with handle, handle.observing(path := PathKL(pipe, 2)):
        pipe(**specimen.call(2), generator=generators)
    assert path.values() == [None, None]


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDIMScheduler"])
def test_predictions_that_stand_for_several_steps_count_as_if_they_were_told_at_each(scheduler: str) -> None:
    """A difference of eps that stays as it is: told once for its span, or at every step."""
    pipe: Any = ZOO["sd"].build()
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(6)
    timesteps, lams = pipe.scheduler.timesteps, torch.tensor([0.0, 0.5, 2.0])
    predictions = {model: (torch.full((3, 4, 8, 8), float(model)),) for model in (0, 1)}

    def told(spans: list[tuple[int, int]]) -> Tensor:
        path = PathKL(pipe, 3)
        for place, span in spans:
            step = Step(
                component="unet",
                sample=None,
                timestep=timesteps[place],
                predictions=predictions,
                lams=[lams],
                span=span,
            )
            path(step)
        return torch.tensor(path.values(), dtype=torch.float64)

    each = told([(place, 1) for place in range(6)])
    assert each[0] == 0 < each[1] < each[2]
    for spans in ([(0, 6)], [(0, 1), (1, 3), (4, 2)], [(0, 4), (4, 99)]):
        torch.testing.assert_close(told(spans), each, rtol=1e-5, atol=0)
    assert (told([(0, 3)])[1:] < each[1:]).all()
