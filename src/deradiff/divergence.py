"""Divergence of realigned sampling from the reference, and log-weights between lams: one scalar an image.

Notation, beside that of `deradiff.noise`:

    Δeps    aligned − reference at x_t, as a difference of eps-predictions
    xi      the standard normal noise that a stochastic step draws
    Q, L    the two scalars that a path accumulates, defined below

Norms and inner products run over all but the first dimension, in float64.

In continuous time, over one path of the reverse SDE whose drift is mixed at lam,

    Q = ∫ ||Δeps||² d rho,                                       path KL to the reference = ½ lam² E[Q],
    L = log p_aligned(path) / p_ref(path) = (lam − ½) Q − ∫ Δeps·dW        (estimates r / beta of the image),
    log p_lam(path) / p_ref(path) = lam L + ½ lam (1 − lam) Q.

Here dW has variance d rho. L is the log-ratio of the two models' densities at the image, since both reverse the same
noising process. Integrals over rho use the trapezoidal rule, and dW = √Δrho xi. On the usual grids of 20 to
50 steps the ratio of the discrete kernels, with coefficients e^Δrho − 1, is a far worse estimate (docs/exactness.md).
"""

import torch
from torch import Tensor

from deradiff.noise import NoiseLevel


def q_increment(
    difference_eps: Tensor,
    level_before: NoiseLevel,
    level_t: NoiseLevel,
    level_after: NoiseLevel,
    *,
    last: bool = False,
) -> Tensor:
    """The contribution of x_t to Q: ``||Δeps||² d rho``, with the node weight d rho = ½ (rho_after − rho_before).

    No prediction is made at the state that the last step reaches, so the interval before it counts in full. The
    interval from alpha = 0 is infinite, but ||Δeps||² vanishes there in proportion to SNR, so that the integral over it
    is ||Δeps||² at its end. Likewise for the interval to sigma = 0, where ||Δeps||² vanishes as 1 / SNR. Both intervals
    therefore count as of length 1.

    Args:
        difference_eps: Δeps at x_t, ``[batch, ...]``.
        level_before: noise level of the previous state, ``[]`` or ``[batch]``; ``level_t`` at the first step.
        level_t: noise level of x_t, likewise.
        level_after: noise level of the state that the step reaches, likewise.
        last: whether no prediction is made at that state.

    Returns:
        Float64 ``[batch]``, in nats when halved and scaled by lam² (`path_kl`).
    """
    previous = (level_t.log_snr - level_before.log_snr).nan_to_num(nan=0.0, posinf=2.0)
    following = (level_after.log_snr - level_t.log_snr).nan_to_num(posinf=1.0) * (2 if last else 1)
    energy = _sum_per_image(difference_eps.double().square())
    # 0 · inf = 0 is the limit where the schedule starts from pure noise
    return torch.where(energy == 0, 0.0, energy * _as_double(0.5 * (previous + following), difference_eps))


def implicit_reward_increment(
    q: Tensor,
    difference_eps: Tensor,
    level_t: NoiseLevel,
    level_after: NoiseLevel,
    noise: Tensor | None,
    lam: float | Tensor,
) -> Tensor:
    """The contribution of the step from x_t to L: ``(lam − ½) q − √Δrho xi·Δeps``.

    Args:
        q: the contribution of x_t to Q, ``[batch]``.
        difference_eps: Δeps at x_t, ``[batch, ...]``.
        level_t: noise level of x_t, ``[]`` or ``[batch]``.
        level_after: noise level of the state that the step reaches, likewise.
        noise: xi, the noise that the step drew, ``[batch, ...]``; None if alpha is 0 before it or sigma is 0 after it.
        lam: the lam of this step, a float or ``[batch]``.

    Returns:
        Float64 ``[batch]``, in nats.
    """
    drift = (_as_double(lam, q) - 0.5) * q
    if noise is None:
        return drift
    root = _as_double((level_after.log_snr - level_t.log_snr).sqrt(), difference_eps)
    return drift - root * _sum_per_image(noise.double() * difference_eps.double())


def log_weight_increment(q: Tensor, lam: float | Tensor) -> Tensor:
    """The contribution of x_t to a particle's Feynman–Kac log-weight: ``−½ lam (1 − lam) q``.

    Skreta et al. 2025 (arXiv 2503.02819). It depends on x_t alone, so particles resample before the step from x_t.

    Args:
        q: the contribution of x_t to Q, ``[batch]``.
        lam: a float or ``[batch]``.

    Returns:
        Float64 ``[batch]``.
    """
    lam = _as_double(lam, q)
    return -0.5 * lam * (1 - lam) * q


def path_kl(q: Tensor, lam: float | Tensor) -> Tensor:
    """KL of paths at lam to the reference, ``½ lam² E[Q]``: an unbiased estimate from the Q of one path, in nats."""
    return 0.5 * _as_double(lam, q) ** 2 * q


def effective_sample_size(log_weights: Tensor, dim: int = -1) -> Tensor:
    """Kish's effective sample size ``(Σw)² / Σw²`` along ``dim``, from 1 (one of K has all weight) to K (all equal)."""
    log_weights = log_weights.double()
    return (2 * log_weights.logsumexp(dim) - (2 * log_weights).logsumexp(dim)).exp()


def _sum_per_image(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _as_double(values: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=like.device)
