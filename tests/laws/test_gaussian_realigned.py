"""The shipped path on a case with a known answer: a Gaussian reference, a linear reward, pipelines of diffusers.

The exact model at beta / lam is N(mean + lam · variance · b / beta, variance), for every lam.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import deradiff

from .gaussian_oracle import GaussianDenoiser
from .schedules import build, randn

LAMS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
SHAPE, VARIANCE, BETA = (2, 4, 4), 0.01, 0.4


def pipeline(kind: str) -> tuple[Any, GaussianDenoiser, Tensor]:
    """A pipeline whose denoiser is the Gaussian reference, its anchor, and the shift of the mean at lam = 1."""
    reference = GaussianDenoiser(*SHAPE[:2], seed=1, variance=VARIANCE).float()
    reference.mean.data *= 0.1  # pipelines clip images to [-1, 1]
    pipe = build(f"{kind}Pipeline", unet=reference, scheduler=build(f"{kind}Scheduler", clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    reference.under(pipe.scheduler)
    direction = 4 * randn(*SHAPE, seed=2).float()
    return pipe, reference.tilted(direction, BETA).float(), VARIANCE * direction / BETA


def sample(pipe: Any, count: int, steps: int = 50) -> Tensor:
    """Images as latents (B, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    images = pipe(batch_size=count, num_inference_steps=steps, output_type="np", generator=generator).images
    return torch.as_tensor(images).permute(0, 3, 1, 2) * 2 - 1


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_realigned_pipelines_are_the_exact_model_to_rounding(kind: str) -> None:
    pipe, anchor, shift = pipeline(kind)
    reference = pipe.unet
    exact = reference.tilted(torch.zeros(SHAPE), BETA).float()
    for lam in LAMS:
        with deradiff.realign(pipe, anchor, lam):
            realigned = sample(pipe, 3, steps=10)
        exact.mean.data = reference.mean.data + lam * shift
        pipe.unet = exact
        torch.testing.assert_close(realigned, sample(pipe, 3, steps=10), atol=1e-5, rtol=0)
        pipe.unet = reference


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_realigned_samples_have_the_exact_mean_and_one_spread(kind: str) -> None:
    pipe, anchor, shift = pipeline(kind)
    each = 200
    with deradiff.realign(pipe, anchor, [lam for lam in LAMS for _ in range(each)]):
        images = sample(pipe, each * len(LAMS)).unflatten(0, (len(LAMS), each))
    standard_error = (VARIANCE / each) ** 0.5
    for lam, of_lam in zip(LAMS, images, strict=True):
        error = of_lam.mean(0) - (pipe.unet.mean.detach() + lam * shift)
        assert error.abs().max() < 4.5 * standard_error + 0.01
        # 50 steps narrow every model alike, the plain reference too
        assert of_lam.var(0).mean().item() == pytest.approx(images[0].var(0).mean().item(), rel=0.1)
