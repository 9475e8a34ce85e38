"""How far realigned sampling goes from the reference, and weights between lams: scalars per image.

Symbols: rho = log SNR; Δeps = aligned − reference at x_t, as predictions of eps; xi the noise that a stochastic step
draws. PathStatistics run over all but the first dimension, in float64.

In continuous time, over one path of the reverse SDE whose drift is mixed at lam,

    Q = ∫ ||Δeps||² d rho,                                       path KL to the reference = ½ lam² E[Q],
    L = log p_aligned(path) / p_ref(path) = (lam − ½) Q − ∫ Δeps·dW        (estimates r / beta of the image),
    log p_lam(path) / p_ref(path) = lam L + ½ lam (1 − lam) Q.

Here dW has variance d rho, and L is the log-ratio of the two models' densities at the image, as both reverse the same
noising. Integrals d rho are taken by the trapezoid and dW = √Δrho xi: on the grids of 20 to 50 steps in use, the ratio
of the discrete kernels, whose coefficients are e^Δrho − 1, says far less of the image (docs/exactness.md).
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
    """What x_t adds to Q: ``||Δeps||² d rho``, the trapezoid taken by nodes: d rho = ½ (rho_after − rho_before).

    Nothing is predicted at the state that the last step reaches, so the interval before it counts in full. One from
    alpha = 0 is infinite, but ||Δeps||² falls towards it as SNR does: the integral over it is ||Δeps||² at its end. So
    is one to sigma = 0, towards which ||Δeps||² falls as 1 / SNR: both count as of length 1.

    Args:
        difference_eps: (B, ...), Δeps at x_t.
        level_before: shape () or (B,), of the state visited before; ``level_t`` itself at the first.
        level_t: likewise, of x_t.
        level_after: likewise, of the state that the step reaches.
        last: whether no prediction is made there.

    Returns:
        (B,), float64, in nats when halved and scaled by lam² (`path_kl`).
    """
    behind = (level_t.log_snr - level_before.log_snr).nan_to_num(nan=0.0, posinf=2.0)
    ahead = (level_after.log_snr - level_t.log_snr).nan_to_num(posinf=1.0) * (2 if last else 1)
    energy = _per_image(difference_eps.double().square())
    # 0 · inf = 0, its limit where the schedule starts from noise alone
    return torch.where(energy == 0, 0.0, energy * _on(0.5 * (behind + ahead), difference_eps))


def implicit_reward_increment(
    q: Tensor,
    difference_eps: Tensor,
    level_t: NoiseLevel,
    level_after: NoiseLevel,
    noise: Tensor | None,
    lam: float | Tensor,
) -> Tensor:
    """What the step from x_t adds to L: ``(lam − ½) q − √Δrho xi·Δeps``.

    Args:
        q: (B,), what x_t adds to Q.
        difference_eps: (B, ...), Δeps at x_t.
        level_t: shape () or (B,), of x_t.
        level_after: likewise, of the state that the step reaches.
        noise: (B, ...), xi, the standard normal that was drawn; None where alpha is 0 before the step, or sigma after.
        lam: a float or (B,), the lam of this step.

    Returns:
        (B,), float64, in nats.
    """
    drift = (_on(lam, q) - 0.5) * q
    if noise is None:
        return drift
    root = _on((level_after.log_snr - level_t.log_snr).sqrt(), difference_eps)
    return drift - root * _per_image(noise.double() * difference_eps.double())


def log_weight_increment(q: Tensor, lam: float | Tensor) -> Tensor:
    """What x_t adds to a particle's Feynman–Kac log-weight: ``−½ lam (1 − lam) q`` (Skreta et al. 2025).

    It depends on x_t alone, so resampling goes before the step from x_t.

    Args:
        q: (B,), what x_t adds to Q.
        lam: a float or (B,).

    Returns:
        (B,), float64.
    """
    lam = _on(lam, q)
    return -0.5 * lam * (1 - lam) * q


def path_kl(q: Tensor, lam: float | Tensor) -> Tensor:
    """KL to the reference of whole paths at lam, ``½ lam² E[Q]``: from one path's Q, an unbiased estimate in nats."""
    return 0.5 * _on(lam, q) ** 2 * q


def effective_sample_size(log_weights: Tensor, dim: int = -1) -> Tensor:
    """Kish's count ``(Σw)² / Σw²`` along ``dim``, from 1 (one sample has all weight) to K (equal weights)."""
    log_weights = log_weights.double()
    return (2 * log_weights.logsumexp(dim) - (2 * log_weights).logsumexp(dim)).exp()


def _per_image(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _on(values: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=like.device)
