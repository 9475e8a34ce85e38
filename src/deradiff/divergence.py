"""How far realigned sampling goes from the reference, and weights between lams: scalars per image.

Symbols: rho = log SNR; Δ = aligned − reference, of whichever prediction is named; xi the noise a stochastic
step draws; level_t before a step, level_s after it. Sums run over all but the first dimension, in float64.

A step from t to s whose kernel is the posterior q(x_s | x_t, x_0) has mean ``A x_t + B x_0`` and variance V with
``B² / V = SNR_s − SNR_t``. Shifting its x_0 by lam Δx0 costs a KL of

    ½ lam² (SNR_s − SNR_t) ||Δx0||²,    in the limit of small steps  ½ lam² ||Δeps||² d rho,

since ``||Δeps||² = SNR ||Δx0||²`` and ``dSNR = SNR d rho``.

Along a path, with ``||Δmu||² / V`` summing to Q,

    L = log p_aligned(path) / p_ref(path) = Σ (lam − ½) ||Δmu||² / V + xi·Δmu / √V      (estimates r / beta)
    log p_lam(path) / p_ref(path) = lam L + ½ lam (1 − lam) Q.
"""

import torch
from torch import Tensor

from deradiff.noise import NoiseLevel


def gaussian_kl(mean_p: Tensor, variance_p: Tensor, mean_q: Tensor, variance_q: Tensor) -> Tensor:
    """``KL(N_p || N_q)`` of diagonal Gaussians in nats.

    Args:
        mean_p: (B, ...).
        variance_p: positive, broadcastable to the means from the right.
        mean_q: (B, ...).
        variance_q: as ``variance_p``.

    Returns:
        (B,), float64.
    """
    variance_p, variance_q = variance_p.double(), variance_q.double()
    mahalanobis = (mean_p.double() - mean_q.double()).square() / variance_q
    ratio = variance_p / variance_q
    return _per_image(0.5 * (ratio - 1 - ratio.log() + mahalanobis))


def step_kl(difference_x0: Tensor, level_t: NoiseLevel, level_s: NoiseLevel, lam: float | Tensor) -> Tensor:
    """KL of one ancestral step at lam to the reference's: ``½ lam² (SNR_s − SNR_t) ||Δx0||²``, in nats.

    Args:
        difference_x0: (B, ...), Δx0 at x_t.
        level_t: shape () or (B,), before the step.
        level_s: likewise, after it; sigma must not be 0 (the kernel is then a point: stop before, or use
            `deradiff.noise.lowest_noise`).
        lam: a float or (B,).

    Returns:
        (B,), float64.
    """
    growth = _on(level_s.snr - level_t.snr, difference_x0)
    return 0.5 * _on(lam, difference_x0) ** 2 * _scaled(_energy(difference_x0), growth)


def q_increment(difference_eps: Tensor, level_t: NoiseLevel, level_s: NoiseLevel) -> Tensor:
    """``||Δeps||² (rho_s − rho_t)``, whose sum over the steps is Q (left rule, Δeps at x_t).

    Where level_t has alpha = 0 the increment is 0, its limit; where level_s has sigma = 0 it is infinite: put
    `deradiff.noise.lowest_noise` there.

    Args:
        difference_eps: (B, ...), Δeps at x_t.
        level_t: shape () or (B,), before the step.
        level_s: likewise, after it.

    Returns:
        (B,), float64, in nats when halved and scaled by lam² (`path_kl`).
    """
    return _scaled(_energy(difference_eps), _on(level_s.log_snr - level_t.log_snr, difference_eps))


def implicit_reward_increment(
    difference_mean: Tensor, step_sigma: float | Tensor, noise: Tensor, lam: float | Tensor
) -> Tensor:
    """One step's share of L, for a step drawn at lam: ``(lam − ½) ||Δmu||² / sigma² + noise·Δmu / sigma``.

    Args:
        difference_mean: (B, ...), Δmu of the step's kernel.
        step_sigma: its standard deviation, positive; a float, () or (B,).
        noise: (B, ...), the standard normal that was drawn.
        lam: a float or (B,), the lam of this step.

    Returns:
        (B,), float64, in nats.
    """
    projection = _per_image(noise.double() * difference_mean.double())
    lam, step_sigma = _on(lam, difference_mean), _on(step_sigma, difference_mean)
    return (lam - 0.5) * _energy(difference_mean) / step_sigma**2 + projection / step_sigma


def path_kl(q: Tensor, lam: float | Tensor) -> Tensor:
    """KL to the reference of whole paths at lam, ``½ lam² E[Q]``: from one path's Q, an unbiased estimate."""
    return 0.5 * lam**2 * q


def resampling_log_weight_increment(
    difference_eps: Tensor,
    level_before: NoiseLevel,
    level_t: NoiseLevel,
    level_after: NoiseLevel,
    lam: float | Tensor,
) -> Tensor:
    """What x_t adds to a particle's Feynman–Kac log-weight: ``−½ lam (1 − lam) ||Δeps||² d rho``.

    Skreta et al. 2025. Summed over all visited states it is the trapezoid in rho, taken by nodes: the d rho of x_t
    is ``½ (rho_after − rho_before)``. It depends on x_t alone, so resampling goes before the step from x_t.
    An interval from alpha = 0 is infinite, but ||Δeps||² falls towards it as SNR does: the integral over it is
    ||Δeps||² at its end, which the trapezoid gives for a length of 2. So is one to sigma = 0, towards which ||Δeps||²
    falls as 1 / SNR.

    Args:
        difference_eps: (B, ...), Δeps at x_t.
        level_before: shape () or (B,), of the state visited before; ``level_t`` itself at the first.
        level_t: likewise, of x_t.
        level_after: likewise, of the state visited next.
        lam: a float or (B,).

    Returns:
        (B,), float64.
    """
    behind = (level_t.log_snr - level_before.log_snr).nan_to_num(nan=0.0, posinf=2.0)
    ahead = (level_after.log_snr - level_t.log_snr).nan_to_num(posinf=2.0)
    d_rho, lam = _on(0.5 * (behind + ahead), difference_eps), _on(lam, difference_eps)
    return -0.5 * lam * (1 - lam) * _scaled(_energy(difference_eps), d_rho)


def reweighting_log_weight(
    implicit_reward: Tensor, q: Tensor, lam: float | Tensor, target_lam: float | Tensor
) -> Tensor:
    """Log-weight that carries a sample drawn at ``lam`` to the model aligned at beta / target_lam.

    ``(target_lam − lam) L − ½ lam (1 − lam) Q``, up to a constant. The target is ``p_ref exp(target_lam L)``, the
    mixture of whole paths; sampling at lam normalises each step by itself, which the second term undoes. So at
    target_lam = lam it is 0 for lam = 0 and 1, and else the correction from stepwise to whole.

    Args:
        implicit_reward: (K,), L of each path.
        q: (K,), Q of each path (the same ``||Δmu||² / sigma²`` that entered L).
        lam: at which the paths were drawn.
        target_lam: wanted.

    Returns:
        (K,).
    """
    return (target_lam - lam) * implicit_reward - 0.5 * lam * (1 - lam) * q


def effective_sample_size(log_weights: Tensor, dim: int = -1) -> Tensor:
    """Kish's count ``(Σw)² / Σw²`` along ``dim``, from 1 (one sample has all weight) to K (equal weights)."""
    log_weights = log_weights.double()
    return (2 * log_weights.logsumexp(dim) - (2 * log_weights).logsumexp(dim)).exp()


def _per_image(values: Tensor) -> Tensor:
    return values.double().flatten(1).sum(1)


def _energy(difference: Tensor) -> Tensor:
    return _per_image(difference.double().square())


def _on(values: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=like.device)


def _scaled(energy: Tensor, interval: Tensor) -> Tensor:
    """``energy · interval`` with 0 · inf = 0, its limit at both ends of a schedule."""
    return torch.where(energy == 0, 0.0, energy * interval)
