"""Feynman–Kac correction: K particles an image, weighed and resampled, and one of them drawn at the end.

Mixing each step by itself drops a factor that is known in closed form (`log_weight_increment`); particles
that carry it as their weight reach p_ref^(1 − lam) p_aligned^lam as K grows (Skreta et al. 2025, arXiv 2503.02819).
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Generator, Tensor

from deradiff.divergence import effective_sample_size


class Particles:
    """The particles of some images.

    Args:
        generators: one an image, which draws who survives.
        count: K particles an image.

    Attributes:
        log_weights: (images, K), float64, since the last resampling.
        roots: (images, K), which of the K particles each descends from.
    """

    def __init__(self, generators: Sequence[Generator], count: int) -> None:
        self.generators, self.count = generators, count
        self.log_weights = torch.zeros(len(generators), count, dtype=torch.float64)
        self.roots = torch.arange(count).repeat(len(generators), 1)

    def weigh(self, increment: Tensor) -> None:
        """Add to the log-weights of all rows, (images x K,)."""
        self.log_weights += increment.reshape(self.log_weights.shape)

    def resample(self) -> Tensor | None:
        """Let particles survive in proportion to their weights, systematically, in images whose ESS is below K / 2.

        Returns:
            The row (images x K,) that each row goes on from; None where no image needs it.
        """
        low = self.ess() < self.count / 2
        if not low.any():
            return None
        parents = torch.arange(self.count).repeat(len(low), 1)
        parents[low] = self._systematic(self.count, low.nonzero()[:, 0])
        self.log_weights[low] = 0.0
        self.roots = self.roots.gather(1, parents)
        return (parents + self.count * torch.arange(len(low))[:, None]).flatten()

    def sample_final(self) -> Tensor:
        """One particle an image, drawn by weight: its row (images,)."""
        every = torch.arange(len(self.generators))
        return self._systematic(1, every)[:, 0] + self.count * every

    def ess(self) -> Tensor:
        """Effective sample size of each image's particles, (images,), from 1 to K."""
        return effective_sample_size(self.log_weights)

    def ancestors(self) -> Tensor:
        """How many of each image's K first particles have descendants among those that remain, (images,)."""
        return torch.tensor([len(set(row)) for row in self.roots.tolist()])

    def _systematic(self, draws: int, images: Tensor) -> Tensor:
        """Indices (len(images), draws) into particles: one uniform an image, then equal strides along the weights."""
        chosen = [self.generators[image] for image in images.tolist()]  # others' must not depend on these
        uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in chosen])
        strides = (uniform + torch.arange(draws)) / draws
        ends = self.log_weights[images].softmax(1).cumsum(1)
        return torch.searchsorted(ends / ends[:, -1:], strides, right=True).clamp(max=self.count - 1)


def permute_solver_state(scheduler: Any, index: Tensor) -> None:
    """Permute what a multistep scheduler remembers of each row."""
    for name, value in vars(scheduler).items():
        if isinstance(value, list) and any(_is_rows(item, index) for item in value):
            setattr(scheduler, name, [take(item, index) if _is_rows(item, index) else item for item in value])
        elif _is_rows(value, index):
            setattr(scheduler, name, take(value, index))


def take(rows: Tensor, index: Tensor) -> Tensor:
    """Rows by their index, on their device."""
    return rows[index.to(rows.device)]


def _is_rows(value: Any, index: Tensor) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == len(index)
