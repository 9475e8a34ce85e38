"""Losses that learn from preferences between two images: Diffusion-DPO and IPO, with soft labels.

For a chosen image w and a rejected image l, both noised to x_t with one noise, let e be a network's squared error on
what it is trained to predict, summed over the latent, and

    drift = (e_policy^w - e_reference^w) - (e_policy^l - e_reference^l).

``-multiplier * drift`` stands for the difference of the two images' log-ratios log p_policy / p_reference; what the
multiplier is belongs to the convention of beta (:mod:`deradiff.align.convention`).
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def drift(policy: Tensor, reference: Tensor) -> Tensor:
    """How much more the policy's error rose on chosen images than on rejected ones, (N,).

    Args:
        policy: (2, N), squared errors on chosen and on rejected images; to average several draws of (t, eps) inside
            the loss, average the errors over them first.
        reference: (2, N), those of the frozen reference at the same t and eps.
    """
    change = policy - reference
    return change[0] - change[1]


def dpo_loss(
    log_ratio: Tensor, *, beta: float, probability: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """``-p log sigmoid(beta r) - (1 - p) log sigmoid(-beta r)``, mean over pairs, a scalar.

    Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, equation 14); label smoothing as in conservative DPO.

    Args:
        log_ratio: r, (N,): the log-ratio of the chosen image less that of the rejected one.
        beta: KL strength, positive.
        probability: p, (N,) or one for all: that the chosen image is the better one, in [0, 1]; 1 is a hard label,
            sigmoid(r_w - r_l) that of a Bradley-Terry model.
        label_smoothing: share of labels believed to be wrong, in [0, 0.5).
    """
    p = _smoothed(probability, label_smoothing, log_ratio)
    return -(p * logsigmoid(beta * log_ratio) + (1 - p) * logsigmoid(-beta * log_ratio)).mean()


def ipo_loss(
    log_ratio: Tensor, *, beta: float, probability: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """``p (r - 1 / 2 beta)² + (1 - p) (r + 1 / 2 beta)²``, mean over pairs, a scalar.

    IPO (Azar et al. 2023, arXiv 2310.12036, equation 17): bounded where DPO drives certain pairs apart without end.

    Args:
        log_ratio: as :func:`dpo_loss`.
        beta: KL strength, positive.
        probability: as :func:`dpo_loss`.
        label_smoothing: as :func:`dpo_loss`.
    """
    p, goal = _smoothed(probability, label_smoothing, log_ratio), 1 / (2 * beta)
    return (p * (log_ratio - goal).square() + (1 - p) * (log_ratio + goal).square()).mean()


def _smoothed(probability: Tensor | float, smoothing: float, like: Tensor) -> Tensor:
    given = torch.as_tensor(probability, dtype=like.dtype, device=like.device)
    return (1 - smoothing) * given + smoothing * (1 - given)
