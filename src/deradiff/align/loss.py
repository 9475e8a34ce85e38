"""The Diffusion-DPO loss (Wallace et al. 2023, arXiv 2311.12908, equation 14), with soft labels.

For a preferred image w and a rejected image l, noised to x_t with noise eps, let e be the squared error of a predicted
eps, and

    h = -beta * timestep_weight * [ (e_policy^w - e_reference^w) - (e_policy^l - e_reference^l) ]
    loss = -p log sigmoid(h) - (1 - p) log sigmoid(-h)

where p is the probability that w is the better one: 1 for a hard label, sigmoid(r_w - r_l) under a Bradley-Terry model
of a reward r. Beta is a convention: its size depends on whether e sums or averages over the latent, and on the
timestep weight, T * omega in the paper. Record both with every model trained.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_loss(
    *,
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    probability: Tensor | float,
    beta: float,
    timestep_weight: Tensor | float = 1.0,
) -> Tensor:
    """Mean loss over pairs, a scalar.

    Args:
        policy_chosen: squared errors ``[N]`` of the model in training on the chosen images; to average several draws
            of (t, eps) inside the sigmoid, average the four errors over them first.
        policy_rejected: the same on the rejected images, at the same t and eps.
        reference_chosen: squared errors of the frozen reference on the chosen images.
        reference_rejected: and on the rejected ones.
        probability: that the chosen image is the better one, in [0, 1].
        beta: KL strength, positive.
        timestep_weight: T * omega(t).
    """
    drift = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    h = -beta * timestep_weight * drift
    weight = torch.as_tensor(probability, dtype=h.dtype, device=h.device)
    return -(weight * logsigmoid(h) + (1 - weight) * logsigmoid(-h)).mean()
