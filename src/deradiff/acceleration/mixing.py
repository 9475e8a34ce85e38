"""Running the models in the cells where they are wanted, and mixing what they predict."""

import torch
from torch import Tensor

from deradiff.acceleration.cells import BatchedCall
from deradiff.mixture import coefficients, combine


def predictions(
    calls: BatchedCall, reference: Tensor, aligned: Tensor, *, shared: bool = False
) -> tuple[Tensor, Tensor]:
    """What reference and anchor predict.

    Args:
        calls: the denoiser's call.
        reference: (I, L), where the reference is wanted.
        aligned: (I, L), where the anchor is wanted.
        shared: the samples are the same at all lams of an image: one is run for all.

    Returns:
        Two of (branches, I, L, ...), zero where not wanted.
    """
    ran = [
        _run(calls, model, cells, shared) if cells.any() else None for model, cells in enumerate((reference, aligned))
    ]
    like = next(one for one in ran if one is not None)
    first, second = (torch.zeros_like(like) if one is None else one for one in ran)
    return first, second


def mixed(calls: BatchedCall, reference: Tensor, aligned: Tensor) -> Tensor:
    """``reference + lam (aligned - reference)``, each model untouched where it alone has weight."""
    lams = calls.lams.repeat(len(reference), 1, 1).flatten().to(reference.device)
    rows = [prediction.flatten(0, 2) for prediction in (reference, aligned)]
    return combine(rows, coefficients([lams])).reshape(reference.shape)


def _run(calls: BatchedCall, model: int, cells: Tensor, shared: bool) -> Tensor:
    if not shared:
        return _placed(calls.predict(model, cells), cells)
    once = torch.zeros_like(cells)
    once[:, 0] = cells.any(dim=1)
    lams = cells.shape[1]
    return _placed(calls.predict(model, once), once)[:, :, :1].repeat_interleave(lams, dim=2)


def _placed(values: Tensor, cells: Tensor) -> Tensor:
    branches, _, *shape = values.shape
    placed = values.new_zeros((branches, *cells.shape, *shape))
    placed[:, cells.to(values.device)] = values
    return placed
