"""Noised latents at random times, and how far a network's predictions of them are off."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deradiff.noise import append_dims, is_flow, prediction_type, training_level
from deradiff.predict import training_target

Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Noised:
    """A batch to predict.

    Attributes:
        x_t: (B, ...).
        timestep: (B,), the scheduler's.
        truth: (B, ...), what the network should say.
    """

    x_t: Tensor
    timestep: Tensor
    truth: Tensor

    def errors(self, predict: Predict) -> Tensor:
        """Squared errors summed over the latent, (B,), in float32; of a learnt variance only the mean is judged."""
        predicted = predict(self.x_t, self.timestep)[:, : self.truth.shape[1]]
        return (predicted.float() - self.truth.float()).square().flatten(1).sum(1)


def random_times(scheduler: Any, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps of training, (count,): whole numbers on a table, continuous and shifted for flows.

    Each is uniform, and of the ``count`` equal parts of the range one falls into each (stratified sampling), so their
    average varies less than that of independent ones.
    """
    share = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    steps = int(scheduler.config.num_train_timesteps)
    if not is_flow(scheduler):
        return (steps * share).long()
    shift = float(getattr(scheduler.config, "shift", None) or 1.0)
    return steps * shift * share / (1 + (shift - 1) * share)


def noised(scheduler: Any, x_0: Tensor, eps: Tensor, timestep: Tensor) -> Noised:
    """Latents (B, ...) noised by eps (B, ...) at timesteps (B,)."""
    level = training_level(scheduler, timestep)
    alpha, sigma = (append_dims(part, x_0).to(x_0.dtype) for part in (level.alpha, level.sigma))
    return Noised(alpha * x_0 + sigma * eps, timestep, training_target(x_0, eps, level, prediction_type(scheduler)))
