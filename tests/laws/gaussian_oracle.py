"""A denoiser that is exact, to put in a pipeline: data N(mean, variance) per pixel, under any readable scheduler.

Tilting by a linear reward ``exp(b·x / beta)`` keeps it Gaussian and moves its mean by ``variance · b / beta``. So the
model aligned at beta / lam is known: N(mean + lam · variance · b / beta, variance).
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from deradiff.mixture import lerp
from deradiff.noise import noise_at, prediction_type
from deradiff.predict import convert

from . import schedules


class GaussianDenoiser(ModelMixin, ConfigMixin):
    """The exact prediction for ``x_0 ~ N(mean, variance)``, called like UNet2DModel or UNet2DConditionModel.

    Args:
        in_channels: channels of the images.
        sample_size: their height and width.
        seed: of the mean, one standard normal per pixel.
        variance: of every pixel.
    """

    @register_to_config
    def __init__(self, in_channels: int = 3, sample_size: int = 8, seed: int = 0, variance: float = 0.25) -> None:
        super().__init__()
        self.mean = nn.Parameter(schedules.randn(in_channels, sample_size, sample_size, seed=seed))
        self.variance = variance
        self.scheduler: Any = None

    def under(self, scheduler: Any) -> "GaussianDenoiser":
        """Sets the scheduler whose timesteps it is called with, and whose form of prediction it gives."""
        self.scheduler = scheduler
        return self

    def tilted(self, direction: Tensor, beta: float) -> "GaussianDenoiser":
        """The optimum of E[direction·x] − beta KL( · || this): Gaussian again, another mean."""
        channels, size, _ = self.mean.shape
        aligned = GaussianDenoiser(channels, size, self.config["seed"], self.variance).under(self.scheduler)
        aligned.mean.data = self.mean.data + self.variance * direction / beta
        return aligned

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        return_dict: bool = True,
        **_: Any,
    ) -> UNet2DOutput | tuple[Tensor]:
        level = noise_at(self.scheduler, timestep)
        alpha, sigma = (s.reshape(*s.shape, *[1] * (sample.ndim - s.ndim)) for s in (level.alpha, level.sigma))
        # double within: the laws compare to rounding
        x_t, mean = sample.double(), self.mean.double()
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        x_0 = mean + gain * (x_t - alpha * mean)
        prediction = convert(x_0, x_t, level, "sample", prediction_type(self.scheduler)).to(sample.dtype)
        return UNet2DOutput(sample=prediction) if return_dict else (prediction,)


class Lerped(nn.Module):
    """Two denoisers mixed by hand: what `deradiff.realign` does to a pipeline, without a pipeline."""

    def __init__(self, reference: GaussianDenoiser, aligned: GaussianDenoiser, lam: float | Tensor) -> None:
        super().__init__()
        self.reference, self.aligned, self.lam = reference, aligned, lam

    def forward(self, *args: Any, **kwargs: Any) -> UNet2DOutput:
        reference, aligned = (model(*args, **kwargs).sample for model in (self.reference, self.aligned))
        return UNet2DOutput(sample=lerp(reference, aligned, self.lam))


@torch.no_grad()
def sample(denoiser: nn.Module, scheduler: Any, steps: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """The plain loop of a pipeline, in double: start from noise, predict, step."""
    torch.manual_seed(seed)
    scheduler.set_timesteps(steps)
    x = schedules.randn(*shape, seed=seed) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        prediction = denoiser(schedules.network_input(scheduler, x, t), t).sample
        x = schedules.step(scheduler, prediction, t, x)
    return x
