"""Interpolation over lam: coarse lams first, each finer one predicted from coarser ones."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_STENCIL = 4  # points of the Lagrange interpolation: cubic


class LamHierarchy:
    """The lams of a sweep by level: ends and the anchor first, then bisections.

    Attributes:
        base: ``[L]``, true for the lams that nothing predicts.
        levels: (index, indices it is predicted from, their weights), coarse to fine.
    """

    def __init__(self, lams: Sequence[float]) -> None:
        known = sorted({0, _nearest(lams, 0.0), _nearest(lams, 1.0), len(lams) - 1})
        self.base = torch.zeros(len(lams), dtype=torch.bool)
        self.base[known] = True
        self.levels: list[tuple[int, list[int], list[float]]] = []
        while len(known) < len(lams):
            new = list(_middles(known))
            self.levels += [(index, *_stencil(lams, index, known)) for index in new]
            known = sorted([*known, *new])

    def predicted(self, values: Tensor, cells: Tensor) -> Tensor:
        """Interpolate each lam from coarser ones.

        Args:
            values: ``[branches, I, L, ...]``, known at ``cells``.
            cells: ``[I, L]``, the base among them.

        Returns:
            ``[branches, I, L, ...]``: ``values`` at the base lams; at others the interpolation of coarser lams, of
            their values where these are known, else of what was interpolated for them.
        """
        best, predicted = values.clone(), values.clone()
        for index, sources, weights in self.levels:
            interpolated = sum(weight * best[:, :, source] for weight, source in zip(weights, sources, strict=True))
            predicted[:, :, index] = interpolated
            known = cells[:, index].to(values.device)
            best[:, :, index] = torch.where(_over(known, best[:, :, index]), best[:, :, index], interpolated)
        return predicted


def _nearest(lams: Sequence[float], target: float) -> int:
    return min(range(len(lams)), key=lambda index: abs(lams[index] - target))


def _middles(known: Sequence[int]) -> Iterator[int]:
    """Halve the widest gaps; gaps of less than half their width wait for the next level."""
    gaps = list(itertools.pairwise(known))
    widest = max(right - left for left, right in gaps)
    for left, right in gaps:
        if right - left > max(1, widest / 2):
            yield (left + right) // 2


def _stencil(lams: Sequence[float], index: int, known: Sequence[int]) -> tuple[list[int], list[float]]:
    """The nearest known lams, two on either side where there are, with their Lagrange weights."""
    left = [k for k in known if k < index][-_STENCIL // 2 :]
    right = [k for k in known if k > index][: _STENCIL // 2]
    others = sorted((k for k in known if k not in [*left, *right]), key=lambda k: abs(k - index))
    sources = [*left, *right, *others[: _STENCIL - len(left) - len(right)]]
    return sources, [
        math.prod((lams[index] - lams[other]) / (lams[source] - lams[other]) for other in sources if other != source)
        for source in sources
    ]


def _over(mask: Tensor, like: Tensor) -> Tensor:
    """``[I]`` broadcast over ``[branches, I, ...]``."""
    return mask.reshape(1, -1, *[1] * (like.ndim - 2))
