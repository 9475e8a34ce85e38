"""Exact models: Gaussian mixtures, their optima under a reward, and a pipeline that samples them.

A mixture ``p = Σ_m w_m N(mean_m, diag variance_m)`` noised to ``x_t = alpha x_0 + sigma eps`` is a mixture again,
so its denoiser ``E[x_0 | x_t]`` has a closed form under any schedule. For a quadratic reward the optimum of alignment
at KL strength beta, ``p*_beta ∝ p exp(r / beta)``, is a Gaussian mixture too. The denoiser has the interface of
diffusers, so that tests on it cover the code that runs on real models.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor, nn

from deradiff.noise import NoiseLevel, noise_at, prediction_type
from deradiff.predict import convert


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """The reward ``slope·x − ½ Σ curvature (x − centre)²``; each ``[dim]``."""

    slope: Tensor
    curvature: Tensor
    centre: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rewards ``[batch]`` of points ``[batch, dim]``."""
        return x @ self.slope - 0.5 * (x - self.centre).square() @ self.curvature


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Gaussians of diagonal covariance: means and variances ``[modes, dim]``, unnormalised log-weights ``[modes]``."""

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-densities ``[batch]`` of points ``[batch, dim]``."""
        parts = torch.distributions.Normal(self.means, self.variances.sqrt()).log_prob(x[:, None]).sum(2)
        return torch.logsumexp(parts + self.log_weights.log_softmax(0), dim=1)

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Sample points ``[count, dim]``."""
        chosen = torch.multinomial(self.log_weights.softmax(0), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[chosen] + self.variances[chosen].sqrt() * noise

    def tilted(self, reward: Quadratic, strength: float) -> tuple["Mixture", Tensor]:
        """The mixture ∝ ``p exp(strength · reward)``, with strength = 1 / beta, and the log of its normaliser.

        Raises:
            ValueError: the reward is so convex that no normaliser exists.
        """
        precision = 1 / self.variances + strength * reward.curvature
        if (precision <= 0).any():
            raise ValueError(f"no density ∝ p exp({strength:g} r): the reward outgrows the mixture's tails")
        drive = self.means / self.variances + strength * (reward.curvature * reward.centre + reward.slope)
        means = drive / precision
        exponent = drive * means - self.means**2 / self.variances - (precision * self.variances).log()
        constant = 0.5 * strength * (reward.curvature * reward.centre**2).sum()
        log_weights = self.log_weights.log_softmax(0) + 0.5 * exponent.sum(1) - constant
        return Mixture(log_weights=log_weights, means=means, variances=1 / precision), log_weights.logsumexp(0)

    def denoised(self, x_t: Tensor, level: NoiseLevel) -> Tensor:
        """``E[x_0 | x_t]``, ``[batch, dim]``, of x_t ``[batch, dim]`` at one noise level ``[]``."""
        alpha, sigma = level.alpha, level.sigma
        total = alpha**2 * self.variances + sigma**2
        deviation = x_t[:, None] - alpha * self.means  # (N, M, D)
        log_weights = self.log_weights - 0.5 * (deviation.square() / total + total.log()).sum(2)
        centres = self.means + alpha * self.variances / total * deviation
        return (log_weights.softmax(1)[..., None] * centres).sum(1)


class OracleDenoiser(ModelMixin, ConfigMixin):
    """The exact denoiser of a mixture, of M components in D dimensions."""

    @register_to_config
    def __init__(self, components: int = 1, dimensions: int = 1) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(components, dtype=torch.float64))
        self.means = nn.Parameter(torch.zeros(components, dimensions, dtype=torch.float64))
        self.variances = nn.Parameter(torch.ones(components, dimensions, dtype=torch.float64))
        self.scheduler: Any = None

    @classmethod
    def from_mixture(cls, mixture: Mixture, scheduler: Any) -> "OracleDenoiser":
        """The denoiser of a mixture, with a scheduler's prediction form and timesteps."""
        model = cls(*mixture.means.shape)
        for name in ("log_weights", "means", "variances"):
            getattr(model, name).data = getattr(mixture, name).clone()
        model.scheduler = scheduler
        return model

    def forward(self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True) -> Any:
        """The exact prediction for ``sample``, ``[batch, dim]``."""
        level = noise_at(self.scheduler, torch.as_tensor(timestep).flatten()[0])
        mixture = Mixture(log_weights=self.log_weights, means=self.means, variances=self.variances)
        x_t = sample.double()
        x_0 = mixture.denoised(x_t, level)
        prediction = convert(x_0, x_t, level, "sample", prediction_type(self.scheduler)).to(sample.dtype)
        return UNet2DOutput(sample=prediction) if return_dict else (prediction,)


@dataclass
class Points(BaseOutput):
    """What :class:`OraclePipeline` returns: points ``[batch, dim]``, under the name of other pipelines' images."""

    images: Tensor


class OraclePipeline(DiffusionPipeline):
    """Unconditional sampling from an :class:`OracleDenoiser` under any scheduler of diffusers."""

    def __init__(self, unet: OracleDenoiser, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int = 50,
        generator: Generator | list[Generator] | None = None,
        eta: float = 0.0,
    ) -> "Points":
        """Sample points, float64 ``[batch_size, dim]``."""
        shape = (batch_size, self.unet.config["dimensions"])
        self.scheduler.set_timesteps(num_inference_steps)
        x_t = randn_tensor(shape, generator=generator, dtype=torch.float64)
        x_t = x_t * float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        noise = {"generator": generator} | ({"eta": eta} if eta else {})
        for t in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(x_t, t) if hasattr(self.scheduler, "scale_model_input") else x_t
            x_t = self.scheduler.step(self.unet(scaled, t).sample, t, x_t, **noise).prev_sample
        return Points(images=x_t)
