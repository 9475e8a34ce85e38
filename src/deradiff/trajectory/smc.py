"""Feynman–Kac correction: K particles for each image, weighted and resampled; one is sampled at the end.

Stepwise mixing omits a factor that is known in closed form (`log_weight_increment`). Particles that carry this factor
as their weight converge to p_ref^(1 − lam) p_aligned^lam as K grows (Skreta et al. 2025, arXiv 2503.02819).
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Generator, Tensor

from deradiff.divergence import effective_sample_size


class Particles:
    """The particles of a batch of images.

    Args:
        generators: one for each image, for resampling.
        count: K, the number of particles for each image.

    Attributes:
        log_weights: float64 ``[images, K]``, since the last resampling.
        ancestors: int64 ``[images, K]``, index of the initial particle from which each descends.
    """

    def __init__(self, generators: Sequence[Generator], count: int) -> None:
        self.generators, self.count = generators, count
        self.log_weights = torch.zeros(len(generators), count, dtype=torch.float64)
        self.ancestors = torch.arange(count).repeat(len(generators), 1)

    def add_log_weights(self, increment: Tensor) -> None:
        """Add an increment ``[images * K]`` to the log-weights."""
        self.log_weights += increment.reshape(self.log_weights.shape)

    def resample(self) -> Tensor | None:
        """Resample, systematically, the particles of images whose ESS is below K / 2.

        Returns:
            The parent row of each row, ``[images * K]``; None if no image is resampled.
        """
        low = self.ess() < self.count / 2
        if not low.any():
            return None
        parents = torch.arange(self.count).repeat(len(low), 1)
        parents[low] = self._systematic(self.count, low.nonzero()[:, 0])
        self.log_weights[low] = 0.0
        self.ancestors = self.ancestors.gather(1, parents)
        return (parents + self.count * torch.arange(len(low))[:, None]).flatten()

    def sample_final(self) -> Tensor:
        """Sample one particle of each image by weight: its row, ``[images]``."""
        images = torch.arange(len(self.generators))
        return self._systematic(1, images)[:, 0] + self.count * images

    def ess(self) -> Tensor:
        """Effective sample size of each image's particles, ``[images]``, from 1 to K."""
        return effective_sample_size(self.log_weights)

    def n_ancestors(self) -> Tensor:
        """Number of each image's K initial particles that still have descendants, ``[images]``."""
        return torch.tensor([len(set(row)) for row in self.ancestors.tolist()])

    def _systematic(self, count: int, images: Tensor) -> Tensor:
        """Systematic resampling: ``count`` particle indices of each image, ``[len(images), count]``.

        Each image draws one uniform number and takes equal strides along its cumulative weights.
        """
        generators = [self.generators[image] for image in images.tolist()]  # other images' generators stay untouched
        uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
        strides = (uniform + torch.arange(count)) / count
        ends = self.log_weights[images].softmax(1).cumsum(1)
        return torch.searchsorted(ends / ends[:, -1:], strides, right=True).clamp(max=self.count - 1)


def permute_solver_state(scheduler: Any, index: Tensor) -> None:
    """Apply a row index ``[batch]`` to the tensors that a multistep scheduler stores for each row."""
    for name, value in vars(scheduler).items():
        if isinstance(value, list) and any(_is_rows(item, index) for item in value):
            setattr(scheduler, name, [select_rows(item, index) if _is_rows(item, index) else item for item in value])
        elif _is_rows(value, index):
            setattr(scheduler, name, select_rows(value, index))


def select_rows(tensor: Tensor, index: Tensor) -> Tensor:
    """The rows of a tensor at an index that may lie on another device."""
    return tensor[index.to(tensor.device)]


def _is_rows(value: Any, index: Tensor) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == len(index)
