"""Preference losses on noised latents: Diffusion-DPO and IPO, with soft labels.

A chosen image w and a rejected image l are noised to x_t with the same noise. Let e be a network's squared error on its
regression target, summed over the latent, and

    margin = (e_policy^w - e_reference^w) - (e_policy^l - e_reference^l).

``-multiplier * margin`` estimates the difference of the two images' log-ratios log p_policy / p_reference. The
convention of beta (:mod:`deradiff.align.convention`) determines the multiplier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from deradiff.noise import append_dims, is_flow, prediction_type, training_level
from deradiff.predict import training_target

Predict = Callable[[Tensor, Tensor], Tensor]


def implicit_margin(policy: Tensor, reference: Tensor) -> Tensor:
    """Increase of the policy's error on chosen images minus that on rejected ones, ``[pairs]``.

    Args:
        policy: squared errors on chosen and on rejected images, ``[2, pairs]``; the mean over several samples of
            (t, eps), if there are several.
        reference: squared errors of the frozen reference at the same t and eps, ``[2, pairs]``.
    """
    change = policy - reference
    return change[0] - change[1]


def dpo_loss(
    log_ratio: Tensor, *, beta: float, probability: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """``-p log sigmoid(beta r) - (1 - p) log sigmoid(-beta r)``, mean over pairs, a scalar.

    Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, equation 14); label smoothing as in conservative DPO.

    Args:
        log_ratio: r, the log-ratio of the chosen image minus that of the rejected one, ``[pairs]``.
        beta: KL strength, positive.
        probability: p, the probability in [0, 1] that the chosen image is better, ``[pairs]`` or a float for all. 1 is
            a hard label, sigmoid(r_w - r_l) a Bradley-Terry model's.
        label_smoothing: share of labels assumed to be wrong, in [0, 0.5).
    """
    p = _smoothed(probability, label_smoothing, log_ratio)
    return -(p * logsigmoid(beta * log_ratio) + (1 - p) * logsigmoid(-beta * log_ratio)).mean()


def ipo_loss(
    log_ratio: Tensor, *, beta: float, probability: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """``p (r - 1 / 2 beta)² + (1 - p) (r + 1 / 2 beta)²``, mean over pairs, a scalar.

    IPO (Azar et al. 2023, arXiv 2310.12036, equation 17). Unlike DPO, it has a finite optimum on certain pairs.

    Args:
        log_ratio: as :func:`dpo_loss`.
        beta: KL strength, positive.
        probability: as :func:`dpo_loss`.
        label_smoothing: as :func:`dpo_loss`.
    """
    p, goal = _smoothed(probability, label_smoothing, log_ratio), 1 / (2 * beta)
    return (p * (log_ratio - goal).square() + (1 - p) * (log_ratio + goal).square()).mean()


def _smoothed(probability: Tensor | float, smoothing: float, like: Tensor) -> Tensor:
    p = torch.as_tensor(probability, dtype=like.dtype, device=like.device)
    return (1 - smoothing) * p + smoothing * (1 - p)


@dataclass(frozen=True)
class NoisedBatch:
    """Noised latents and the network's regression targets.

    Attributes:
        x_t: ``[batch, ...]``.
        timestep: the scheduler's, ``[batch]``.
        target: ``[batch, ...]``.
    """

    x_t: Tensor
    timestep: Tensor
    target: Tensor

    def squared_errors(self, predict: Predict) -> Tensor:
        """Squared errors summed over the latent, float32 ``[batch]``; channels of a learned variance don't count."""
        predicted = predict(self.x_t, self.timestep)[:, : self.target.shape[1]]
        return (predicted.float() - self.target.float()).square().flatten(1).sum(1)


def sample_timesteps(scheduler: Any, count: int, generator: torch.Generator) -> Tensor:
    """Training timesteps ``[count]``: integers for a table, continuous and shifted for flows.

    Stratified sampling: each timestep is uniform, and one lies in each of ``count`` equal parts of the range, so that
    their mean error varies less than that of independent timesteps.
    """
    share = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    steps = int(scheduler.config.num_train_timesteps)
    if not is_flow(scheduler):
        return (steps * share).long()
    shift = float(getattr(scheduler.config, "shift", None) or 1.0)
    return steps * shift * share / (1 + (shift - 1) * share)


def add_noise(scheduler: Any, x_0: Tensor, eps: Tensor, timestep: Tensor) -> NoisedBatch:
    """Add noise ``[batch, ...]`` to latents ``[batch, ...]`` at timesteps ``[batch]``."""
    level = training_level(scheduler, timestep)
    alpha, sigma = (append_dims(part, x_0).to(x_0.dtype) for part in (level.alpha, level.sigma))
    return NoisedBatch(
        alpha * x_0 + sigma * eps, timestep, training_target(x_0, eps, level, prediction_type(scheduler))
    )
