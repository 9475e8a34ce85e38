"""The mixture of predictions, and which models it needs.

    prediction = reference + Σ lam_k (aligned_k - reference)

ComfyUI's models return the denoised latent, which is affine in the raw prediction (eps, v or flow) with coefficients
that depend on the latent and the noise level alone. Mixing one is mixing the other, and it happens to each
conditioning by itself, before classifier-free guidance.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Predictions = Sequence[Tensor]
"""One tensor ``[rows, ...]`` per conditioning, or a single one that holds them all."""


def mix_predictions(
    predict_reference: Callable[[], Predictions],
    predict_aligned: Sequence[Callable[[], Predictions]],
    lams: Tensor,
) -> list[Tensor]:
    """Calls the models that have weight in some row, and mixes what they predict.

    Args:
        predict_reference: calls the reference.
        predict_aligned: calls each of the K aligned models.
        lams: ``[K, rows]``.

    Returns:
        One mixture per prediction: bitwise the reference's in rows where every lam is 0, and bitwise an aligned model's
        in rows where its lam is 1 and all others are 0.
    """
    active = [k for k in range(len(lams)) if lams[k].any()]
    if not active:
        return list(predict_reference())
    needs_reference = bool((lams.sum(0) != 1).any())
    reference = predict_reference() if needs_reference else None
    aligned = [predict_aligned[k]() for k in active]
    return [
        _mix(None if reference is None else reference[i], [one[i] for one in aligned], lams[active])
        for i in range(len(aligned[0]))
    ]


def _mix(reference: Tensor | None, aligned: Sequence[Tensor], lams: Tensor) -> Tensor:
    weights = [_as_column(lam, aligned[0]) for lam in lams]
    if reference is None:
        return sum((weight * one for weight, one in zip(weights, aligned, strict=True)), torch.zeros_like(aligned[0]))
    if len(aligned) == 1:
        return torch.lerp(reference, aligned[0], weights[0])  # bitwise either end at 0 and 1
    return reference + sum(weight * (one - reference) for weight, one in zip(weights, aligned, strict=True))


def _as_column(lam: Tensor, like: Tensor) -> Tensor:
    """``[rows]`` to ``[rows, 1, ...]``, on the device and in the dtype of the prediction."""
    return lam.to(like).reshape(-1, *[1] * (like.ndim - 1))
