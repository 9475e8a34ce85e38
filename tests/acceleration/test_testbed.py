"""Errors, calls and path KL on the embedded pipeline, whose predictions are as smooth as a trained network's."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

import deradiff
from deradiff import testbed
from deradiff.acceleration import Adaptive, Exact, Policy, Reuse
from deradiff.realignment import Handle

from .sweeps import error, through

LAMS = (0.0, 0.25, 0.5, 1.0, 1.5)
STEPS = 20
PROMPTS = testbed.prompts(2, seed=7)


class Bed:
    def __init__(self, pipe: Any, handle: Handle) -> None:
        self.pipe, self.handle = pipe, handle
        self.exact, self.calls, self.path_kl = self.run(Exact(), watched=True)

    def run(
        self, policy: Policy, *, images: Sequence[int] = (0, 1), watched: bool = False
    ) -> tuple[Tensor, int, Tensor]:
        """Latents, network calls, and path KL where it is watched."""
        self.handle.lam = [*LAMS] * len(images)
        with self.handle.recording() if watched else nullcontext():
            latents, budget = through(self.handle, policy, lambda: self._call(images), lams=len(LAMS))
        path_kl = self.handle.paths.path_kl if watched and self.handle.paths else None
        return latents, budget.nfe, torch.zeros(len(latents)) if path_kl is None else path_kl

    def _call(self, images: Sequence[int]) -> Tensor:
        settings = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "latent", "return_dict": False}
        prompts = [PROMPTS[image] for image in images]
        rows = [torch.Generator().manual_seed(image) for image in images for _ in LAMS]
        return self.pipe(prompts, num_images_per_prompt=len(LAMS), generator=rows, **settings)[0]


@pytest.fixture(scope="module", params=["DDIM", "ancestral"])
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    pipe: Any = testbed.load_pipeline()
    if request.param == "DDIM":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with deradiff.realign(pipe, str(testbed.anchor_path()), [*LAMS] * 2) as handle:
        yield Bed(pipe, handle)


def test_the_error_falls_with_the_tolerance_and_calls_rise(bed: Bed) -> None:
    errors, counts = [], []
    for tolerance in (0.05, 0.01):
        latents, calls, _ = bed.run(Adaptive(tolerance))
        errors.append(float(error(latents, bed.exact).mean()))
        counts.append(calls)
    assert errors[0] > errors[1]
    assert counts[0] < counts[1]
    assert errors[1] < 0.01  # DDIM without error_correction: 0.019
    assert counts[1] <= 2 * STEPS * len(bed.exact) / 2


@pytest.mark.parametrize("bed", ["DDIM"], indirect=True)
def test_reuse_errs_little_as_it_pays_back(bed: Bed) -> None:
    latents, calls, _ = bed.run(Reuse(3))
    assert error(latents, bed.exact).mean() < 5e-4  # without error_correction: 8e-4
    assert calls < 0.65 * bed.calls


@pytest.mark.parametrize("bed", ["DDIM"], indirect=True)
def test_an_image_does_not_depend_on_the_others_of_its_batch(bed: Bed) -> None:
    both, calls, _ = bed.run(Adaptive(0.01))
    alone = [bed.run(Adaptive(0.01), images=[image]) for image in (0, 1)]
    assert error(torch.cat([latents for latents, _, _ in alone]), both).max() < 1e-3
    assert sum(count for _, count, _ in alone) == calls


def test_path_kl_is_near_the_exact_one(bed: Bed) -> None:
    _, calls, path_kl = bed.run(Adaptive(0.01), watched=True)
    assert calls < 0.8 * bed.calls
    assert (path_kl[:: len(LAMS)] == 0).all()
    inside = bed.path_kl > 0
    off = (path_kl[inside] / bed.path_kl[inside] - 1).abs()
    assert off.max() < 0.2
    assert off.mean() < 0.1
