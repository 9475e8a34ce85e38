"""Low-rank updates of layers: sums, truncation, and what truncation leaves out.

W, dW        weight of a layer ``[out, in]`` or ``[out, in, kh, kw]``, and its update
down, up     factors of ``dW = up @ down``, with ``in · kh · kw`` taken as one dimension (LoRA's A and B)
energy       share of ``||dW||²`` (Frobenius) that a truncation keeps
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deradiff.errors import BakeError


@dataclass(frozen=True, eq=False)
class LowRank:
    """``dW = up @ down`` of one layer, in float32.

    Attributes:
        down: ``[rank, in]`` or ``[rank, in, kh, kw]``.
        up: ``[out, rank]``, with ``[1, 1]`` behind for a convolution.
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Number of rows of ``down``."""
        return len(self.down)

    def dense(self) -> Tensor:
        """dW in the weight's shape."""
        return (self.up.flatten(1) @ self.down.flatten(1)).reshape(len(self.up), *self.down.shape[1:])

    def norm(self) -> float:
        """``||dW||``, without computing dW."""
        gram = (self.up.flatten(1).T @ self.up.flatten(1)) * (self.down.flatten(1) @ self.down.flatten(1).T)
        return float(gram.double().sum().clamp(min=0).sqrt())


def weighted_sum(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """``sum_k weights[k] dW_k``, exactly: the ranks add up."""
    down = torch.cat([update.down for update in updates])
    up = torch.cat([weight * update.up for update, weight in zip(updates, weights, strict=True)], dim=1)
    return LowRank(down, up)


def factorize(dense: Tensor, *, rank: int | None, energy: float | None) -> tuple[LowRank, float]:
    """The best low-rank update by truncated SVD (Eckart and Young 1936), and its relative error ``||rest|| / ||dW||``.

    Args:
        dense: dW.
        rank: at most so many.
        energy: the fewest that keep this share of ``||dW||²``; of both the smaller rank.

    Raises:
        BakeError: the update isn't finite.
    """
    if not dense.isfinite().all():
        raise BakeError(
            "the anchor's difference to the reference isn't finite: one of them has weights that are NaN or infinite; "
            "fetch them again"
        )
    left, values, right = torch.linalg.svd(dense.flatten(1).float(), full_matrices=False)
    return _truncate(left, values, right, dense.shape[1:], rank, energy)


def truncate(update: LowRank, *, rank: int | None, energy: float | None) -> tuple[LowRank, float]:
    """A low-rank update of smaller rank, as :func:`factorize`, without computing dW."""
    left, inner_left = torch.linalg.qr(update.up.flatten(1))
    right, inner_right = torch.linalg.qr(update.down.flatten(1).T)
    rotation, values, other = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    return _truncate(left @ rotation, values, other @ right.T, update.down.shape[1:], rank, energy)


def _truncate(
    left: Tensor, values: Tensor, right: Tensor, shape: Sequence[int], rank: int | None, energy: float | None
) -> tuple[LowRank, float]:
    squares = values.double().square()
    total = float(squares.sum())
    kept = len(values) if rank is None else min(rank, len(values))
    if energy is not None and total:
        kept = min(kept, 1 + int((squares.cumsum(0) < energy * total).sum()))
    root = values[:kept].sqrt()  # shared between the factors, so that half precision suits both
    down = (root[:, None] * right[:kept]).reshape(kept, *shape)
    up = (left[:, :kept] * root).reshape(len(left), kept, *[1] * (len(shape) - 1))
    error = (float(squares[kept:].sum()) / total) ** 0.5 if total else 0.0
    return LowRank(down.contiguous(), up.contiguous()), error
