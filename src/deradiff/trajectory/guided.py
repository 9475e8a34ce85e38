"""The difference of the two *guided* models, told without knowing how a pipeline guides.

A pipeline calls its denoiser once or several times a step (for each branch of guidance, or stacked in one batch) and
gives its scheduler a linear combination of what came back: uncond + g (cond − uncond) in classifier-free guidance,
three branches in others, a changed sign in some. Its coefficients are read off by least squares, image by image, and
the same combination of the branches' differences is that of the guided models: no pipeline's arguments are looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from deradiff.trajectory.denoiser_call import DenoiserCall

_TOLERANCE = 0.05  # of the norm; bfloat16 at a guidance of 10 stays below, what isn't linear does not


def guided_difference(output: Tensor, calls: Sequence[DenoiserCall]) -> Tensor | None:
    """Aligned − reference of what the scheduler was given.

    Args:
        output: (B, ...), the model output given to the scheduler.
        calls: of the denoiser since the last step.

    Returns:
        (B, ...) in float64 on the CPU; None where the output is no linear combination of the denoiser's predictions.
    """
    branches = [branch for call in calls for branch in _branches(call, output)]
    if not branches:
        return None
    mixtures, differences = (torch.stack(parts, dim=1) for parts in zip(*branches, strict=True))  # (B, branches, ...)
    given = output.detach().cpu().double()
    coefficients = _fit(mixtures.flatten(2), given.flatten(1))
    fitted = torch.einsum("bk,bk...->b...", coefficients, mixtures)
    if (fitted - given).flatten(1).norm(dim=1).gt(_TOLERANCE * given.flatten(1).norm(dim=1)).any():
        return None
    return torch.einsum("bk,bk...->b...", coefficients, differences)


def _fit(basis: Tensor, target: Tensor) -> Tensor:
    """Least-squares coefficients (B, K) of targets (B, N) on K vectors each; the smallest where several fit."""
    gram = basis @ basis.transpose(1, 2)
    return (torch.linalg.pinv(gram, hermitian=True) @ basis @ target[..., None])[..., 0]


def _branches(call: DenoiserCall, output: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What a call made of each branch of guidance: mixture and difference, (B, ...)."""
    given = (call.mixture, call.predictions.get(0), call.predictions.get(1))
    mixture, reference, aligned = (_rows(value, output) for value in given)
    if mixture is None or reference is None or aligned is None:  # a call that fills a cache
        return
    for start in range(0, len(mixture), len(output)):
        part = slice(start, start + len(output))
        yield mixture[part], aligned[part] - reference[part]


def _rows(prediction: Any, output: Tensor) -> Tensor | None:
    """A prediction's rows, each of the output's shape; None where they can't be brought to it."""
    value: Any = prediction if isinstance(prediction, Tensor | list | None) else prediction[0]
    if isinstance(value, list):
        value = torch.stack(value)
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) % len(output):
        return None
    shape = output.shape[1:]
    if value.shape[2:] == shape[1:] and value.shape[1] > shape[0]:  # variances or tokens of an image, which are cut off
        value = value[:, : shape[0]]
    if value[0].numel() != output[0].numel():
        return None
    return value.detach().cpu().double().reshape(-1, *shape)
