"""How far samples are from a distribution that is known."""

import math

import torch
from scipy.stats import norm
from torch import Tensor

from deradiff.testbed.oracle import Mixture

PROJECTIONS = 64
BINS, REACH = 100, 5.0  # of the histogram: over [-5, 5]


def sliced_wasserstein(one: Tensor, other: Tensor) -> float:
    """Sliced Wasserstein-2 distance of as many points each, (N, D)."""
    directions = torch.randn(one.shape[1], PROJECTIONS, generator=torch.Generator().manual_seed(0), dtype=one.dtype)
    directions = directions / directions.norm(dim=0)
    along = [(points @ directions).sort(dim=0).values for points in (one, other)]
    return float((along[0] - along[1]).square().mean().sqrt())


def histogram_kl(points: Tensor, target: Mixture) -> float:
    """``KL(points || target)`` in nats of points (N, 1), by bins whose probabilities under the target are exact."""
    edges = torch.linspace(-REACH, REACH, BINS + 1, dtype=torch.float64)
    scaled = (edges[:, None] - target.means[:, 0]) / target.variances[:, 0].sqrt()
    below = torch.from_numpy(norm.cdf(scaled.numpy())) @ target.log_weights.softmax(0)
    expected = below.diff().clamp(min=1e-12)
    share = torch.histogram(points[:, 0].clamp(-REACH, REACH), edges).hist / len(points)
    seen = share > 0
    return float((share[seen] * (share[seen] / expected[seen]).log()).sum())


def energy_distance(points: Tensor, pool: Tensor, weights: Tensor) -> float:
    """Energy distance of points (N, D) to a weighted pool (M, D); unbiased, so it may be below 0.

    In units of the root mean square difference of two points' elements.
    """
    weights = weights / weights.sum()
    across = (torch.cdist(points, pool) @ weights).mean()
    within = torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))
    apart = torch.cdist(pool, pool)
    spread = weights @ apart @ weights / (1 - weights.square().sum())
    return float(2 * across - within - spread) / math.sqrt(points.shape[1])
