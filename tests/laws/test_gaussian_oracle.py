from typing import Any

import pytest
import torch

from deradiff.noise import noise_levels

from .gaussian_oracle import GaussianDenoiser, Lerped, sample
from .schedules import build, randn

BETA = 0.4
LAMS = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0]
IMAGES, SHAPE = 300, (2, 4, 4)
# betas up to 0.02 end at alpha = 0.006, so that starting from N(0, I) is right
SCHEDULERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "DDPM": ("DDPMScheduler", {"clip_sample": False}, 200),
    "DDIM v": ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}, 200),
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", {"beta_start": 1e-4, "beta_end": 0.02}, 200),
    "DPM++ Karras": (
        "DPMSolverMultistepScheduler",
        {"beta_start": 1e-4, "beta_end": 0.02, "use_karras_sigmas": True},
        30,
    ),
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 200),
}
each_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def pair(name: str) -> tuple[GaussianDenoiser, GaussianDenoiser, torch.Tensor, Any, int]:
    """Reference, aligned model, the shift of the mean at lam = 1, the scheduler and its steps."""
    kind, options, steps = SCHEDULERS[name]
    scheduler = build(kind, **options)
    reference = GaussianDenoiser(SHAPE[0], SHAPE[1], seed=1, variance=0.25).under(scheduler)
    direction = randn(*SHAPE, seed=2)
    return reference, reference.tilted(direction, BETA), 0.25 * direction / BETA, scheduler, steps


@each_scheduler
def test_realigned_samples_follow_the_exact_model(name: str) -> None:
    reference, aligned, shift, scheduler, steps = pair(name)
    lams = torch.tensor(LAMS, dtype=torch.float64)
    denoiser = Lerped(reference, aligned, lams.repeat_interleave(IMAGES))
    images = sample(denoiser, scheduler, steps, (len(LAMS) * IMAGES, *SHAPE), seed=3).unflatten(0, (len(LAMS), IMAGES))
    standard_error = (reference.variance / IMAGES) ** 0.5
    for lam, of_lam in zip(lams, images, strict=True):
        mean = reference.mean.detach() + lam * shift
        error = of_lam.mean(0) - mean
        # 300 draws a pixel; finite steps add a bias in proportion to the mean, and take some variance
        assert error.abs().max() < 4.5 * standard_error + 0.01 * mean.abs().max()
        assert error.square().mean().sqrt() < 1.15 * standard_error + 0.01 * mean.square().mean().sqrt()
        assert of_lam.var(0).mean().item() == pytest.approx(reference.variance, rel=0.1)


@each_scheduler
@pytest.mark.parametrize("lam", LAMS)
def test_mixing_predictions_is_the_exact_model_to_rounding(name: str, lam: float) -> None:
    reference, aligned, shift, scheduler, _ = pair(name)
    exact = reference.tilted(torch.zeros(SHAPE), BETA)
    exact.mean.data += lam * shift
    mixed = sample(Lerped(reference, aligned, lam), scheduler, 10, (2, *SHAPE), seed=4)
    torch.testing.assert_close(mixed, sample(exact, scheduler, 10, (2, *SHAPE), seed=4), atol=1e-8, rtol=1e-8)


def test_the_oracle_is_the_posterior_mean() -> None:
    scheduler = build("DDIMScheduler", prediction_type="sample")
    scheduler.set_timesteps(10)
    denoiser, levels = GaussianDenoiser(1, 1, seed=5).under(scheduler), noise_levels(scheduler)
    grid = torch.arange(-6, 6, 0.001, dtype=torch.float64)
    mean = denoiser.mean.item()
    for k, t in enumerate(scheduler.timesteps):
        x_t = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
        log_prior = -(grid - mean).square() / (2 * denoiser.variance)
        log_likelihood = -(0.3 - levels.alpha[k] * grid).square() / (2 * levels.sigma[k] ** 2)
        expected = ((log_prior + log_likelihood).softmax(0) * grid).sum()
        torch.testing.assert_close(denoiser(x_t, t).sample.squeeze(), expected, atol=1e-6, rtol=1e-6)


def test_the_tilted_oracle_is_the_reference_times_the_exponential_of_the_reward() -> None:
    reference, direction = GaussianDenoiser(1, 1, seed=6, variance=0.5), torch.tensor([[[1.7]]]).double()
    grid = torch.arange(-12, 12, 0.001, dtype=torch.float64)
    log_density = -(grid - reference.mean.item()).square() / (2 * 0.5) + grid * direction.item() / BETA
    expected = (log_density.softmax(0) * grid).sum().item()
    assert reference.tilted(direction, BETA).mean.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_the_pipelines_of_diffusers_accept_the_oracle_as_their_unet(kind: str) -> None:
    denoiser = GaussianDenoiser(*SHAPE[:2], seed=1, variance=0.01).float()
    denoiser.mean.data *= 0.2
    pipe = build(f"{kind}Pipeline", unet=denoiser, scheduler=build(f"{kind}Scheduler", clip_sample=False))
    denoiser.under(pipe.scheduler)  # DDIMPipeline makes its own from the config
    pipe.set_progress_bar_config(disable=True)
    images = torch.as_tensor(pipe(batch_size=50, num_inference_steps=50, output_type="np").images)
    # a pipeline gives (x + 1) / 2, clipped, channels last
    error = images.mean(0) - (denoiser.mean.detach().permute(1, 2, 0) / 2 + 0.5)
    assert error.abs().max() < 0.05
