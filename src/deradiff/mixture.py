"""The geometric mixture of two Gaussians: the core of DeRaDiff (arXiv 2601.20198).

Notation: lam is the mixing weight, beta a KL strength, r the reward, p_ref the reference, p_beta the model aligned at
beta. Aligning at KL strength beta gives ``p_beta ∝ p_ref exp(r / beta)``, so the model aligned at beta / lam is

    p_(beta / lam) ∝ p_ref^(1 - lam) · p_beta^lam.

Reverse kernels are Gaussian, and so is their geometric mixture:

    precision = (1 - lam) / variance_ref + lam / variance_aligned
    mean      = (1 - w) mean_ref + w mean_aligned,    w = lam / (variance_aligned · precision).

With equal variances w = lam: one lerp of two means, and of two predictions since means are affine in them.
With lam outside [0, 1] the precision can be zero or negative; then the mixture does not exist.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deradiff.errors import LamError
from deradiff.noise import append_dims


def lerp(reference: Tensor, aligned: Tensor, lam: float | Tensor) -> Tensor:
    """``(1 - lam) reference + lam aligned``, bitwise ``reference`` at lam = 0 and ``aligned`` at lam = 1.

    Args:
        reference: ``[batch, ...]``.
        aligned: same shape and dtype.
        lam: a float, or a tensor ``[batch]`` or ``[batch, ...]`` that broadcasts from the left.

    Returns:
        ``[batch, ...]``, in the dtype of the inputs; computed in float32 or higher precision.
    """
    if not isinstance(lam, Tensor):
        if lam == 0 or lam == 1:
            return aligned if lam else reference
        return torch.lerp(reference, aligned, lam)
    weight = append_dims(lam, reference)
    dtype = torch.promote_types(reference.dtype, torch.float32)
    mixed = torch.lerp(reference.to(dtype), aligned.to(dtype), weight.to(dtype)).to(reference.dtype)
    return torch.where(weight == 0, reference, torch.where(weight == 1, aligned, mixed))


def coefficients(lams: Sequence[float | Tensor]) -> list[float | Tensor]:
    """The coefficients ``[1 - Σ lam_k, lam_1, ..., lam_K]`` of the reference and its K anchors."""
    return [1 - sum(lams), *lams]


def combine(predictions: Sequence[Tensor | None], coefficients: Sequence[float | Tensor]) -> Tensor:
    """``Σ c_k prediction_k`` over the reference and its anchors, for coefficients that sum to 1.

    Args:
        predictions: each ``[batch, ...]``, or None where its coefficient is 0.
        coefficients: one for each prediction, a float or ``[batch]``; see `coefficients`.

    Returns:
        ``[batch, ...]``. If only one prediction has a nonzero coefficient, that tensor itself; a row in which one
        coefficient is 1 and the others are 0 is bitwise that prediction's.

    Raises:
        LamError: the counts differ, every coefficient is 0, or a prediction with a nonzero coefficient is missing.
    """
    if len(predictions) != len(coefficients):
        raise LamError(f"{len(predictions)} predictions have {len(coefficients)} coefficients: give one for each.")
    used: list[tuple[Tensor, float | Tensor]] = []
    for k, (prediction, c) in enumerate(zip(predictions, coefficients, strict=True)):
        if torch.as_tensor(c == 0).all():
            continue
        if prediction is None:
            raise LamError(f"Prediction {k} is missing but has coefficient {c}: compute it, or give coefficient 0.")
        used.append((prediction, c))
    if not used:
        raise LamError("Every coefficient is 0: they must sum to 1.")
    base = used[0][0]
    if len(used) <= 2:
        return lerp(base, *used[1]) if len(used) == 2 else base
    return _combine_many(used)


def _combine_many(terms: Sequence[tuple[Tensor, float | Tensor]]) -> Tensor:
    """``Σ c_k prediction_k`` as the first prediction and weighted differences from it: exact where all agree."""
    base = terms[0][0]
    dtype = torch.promote_types(base.dtype, torch.float32)
    rows = [torch.as_tensor(c, dtype=dtype, device=base.device).expand(len(base)) for _, c in terms]
    weights = torch.stack([append_dims(row, base) for row in rows])
    mixed = base.to(dtype)
    for (prediction, _), weight in zip(terms[1:], weights[1:], strict=True):
        mixed = mixed + weight * (prediction.to(dtype) - base.to(dtype))
    mixed = mixed.to(base.dtype)
    is_only = (weights != 0) & ((weights != 0).sum(0) == 1)
    for (prediction, _), rows_of_one in zip(terms, is_only, strict=True):
        mixed = torch.where(rows_of_one, prediction, mixed)
    return mixed


def geometric_mixture(
    mean_ref: Tensor,
    variance_ref: Tensor,
    mean_aligned: Tensor,
    variance_aligned: Tensor,
    lam: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the normalised ``N_ref^(1-lam) · N_aligned^lam``, elementwise for diagonal Gaussians.

    Args:
        mean_ref: ``[batch, ...]``.
        variance_ref: positive, broadcastable to the means from the right.
        mean_aligned: ``[batch, ...]``.
        variance_aligned: as ``variance_ref``.
        lam: a float, or a tensor ``[batch]`` that broadcasts from the left.

    Returns:
        Mean and variance, of the broadcast shape; bitwise the reference's at 0 and the aligned model's at 1.

    Raises:
        LamError: a precision is not positive; the message names the allowed range of lam.
    """
    ratio = variance_aligned / variance_ref
    weight = append_dims(torch.as_tensor(lam, dtype=ratio.dtype), mean_ref).to(ratio.device)
    # precision · variance_aligned, so that lam = 0 and 1 are exact
    scaled_precision = torch.lerp(ratio, torch.ones_like(ratio), weight)
    if not (scaled_precision > 0).all():
        highest = max_lam(variance_ref, variance_aligned)
        lowest = 1 - max_lam(variance_aligned, variance_ref)
        raise LamError(
            f"lam = {_format_lam(lam)} gives a precision that is not positive, so the mixture does not exist: "
            f"with these variances lam must lie strictly between {lowest:.6g} and {highest:.6g}."
        )
    mean = lerp(mean_ref, mean_aligned, weight / scaled_precision)
    variance = torch.where(weight == 0, variance_ref, variance_aligned / scaled_precision)
    return mean, variance


def max_lam(variance_ref: Tensor, variance_aligned: Tensor) -> float:
    """The supremum of lams whose mixture exists; ``inf`` unless an aligned variance exceeds the reference's."""
    wider = variance_aligned / (variance_aligned - variance_ref)
    bounds = torch.where(variance_aligned > variance_ref, wider, math.inf)
    return float(bounds.min())


def lam_from_beta(anchor_beta: float, beta: float) -> float:
    """The lam at which an anchor of ``anchor_beta`` emulates a model aligned at ``beta``; 0 for an infinite beta.

    Raises:
        LamError: a beta that is not positive.
    """
    _check_positive(anchor_beta=anchor_beta, beta=beta)
    return anchor_beta / beta


def _check_positive(**betas: float) -> None:
    for name, beta in betas.items():
        if not beta > 0:
            raise LamError(f"{name} is {beta}: a KL strength is a positive number.")


def _format_lam(lam: float | Tensor) -> str:
    values = [float(value) for value in lam.flatten()] if isinstance(lam, Tensor) else [lam]
    return ", ".join(f"{value:.6g}" for value in values)
