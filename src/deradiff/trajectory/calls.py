"""The calls of a denoiser between two steps of a scheduler, and the difference of the *guided* models in them.

A pipeline calls its denoiser once or several times a step (once for each guidance branch, or with all branches stacked
in one batch). It passes its scheduler a linear combination of the outputs: uncond + g (cond − uncond) under
classifier-free guidance, three branches or a changed sign elsewhere. `guided_difference` recovers the coefficients by
least squares, image by image, and applies them to the branches' differences. No argument of a pipeline is inspected.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deradiff.noise import NoiseLevel
from deradiff.predict import convert_difference

_TOLERANCE = 0.05  # relative residual norm: bfloat16 at a guidance of 10 stays below, nonlinear combinations exceed it

Lam = float | Tensor


@dataclass(frozen=True, kw_only=True)
class DenoiserCall:
    """One call of a denoiser.

    Attributes:
        component: the denoiser's name in the pipeline.
        sample: its input x_t ``[batch, ...]``, as the scheduler scaled it.
        timestep: as passed to the network.
        predictions: output of each model, 0 the reference and 1..K the anchors.
        mixture: the mixed output, of the same structure, which the pipeline receives.
        lams: one for each anchor, each a float or ``[batch]``.
        steps_covered: number of steps, including this one, for which the predictions hold (1 unless steps are skipped).
        extrapolated: whether a policy has extrapolated part of the predictions from earlier steps.
    """

    component: str
    sample: Any
    timestep: Any
    predictions: Mapping[int, Any]
    mixture: Any
    lams: list[Lam]
    steps_covered: int = 1
    extrapolated: bool = False


Observer = Callable[[DenoiserCall], None]


class CallBuffer:
    """The calls since the scheduler's last step, and a difference that holds for several steps.

    Attributes:
        calls: since the last step.
        is_exact: whether every step's difference has been computed so far.
    """

    def __init__(self) -> None:
        self.calls: list[DenoiserCall] = []
        self.is_exact = True
        self._held: tuple[Tensor, int] | None = None  # Δeps, and for how many more steps
        self._lam = torch.zeros(())

    def difference(self, output: Tensor, form: str, level: NoiseLevel) -> tuple[Tensor, Tensor] | None:
        """Aligned − reference of the guided models, ``[batch, ...]``, and lam, ``[batch]``; float64 on the CPU.

        Args:
            output: the model output that the scheduler receives, ``[batch, ...]``.
            form: its prediction form.
            level: noise level of x_t, ``[]``.

        Returns:
            None if the difference can't be inferred.

        Raises:
            ScheduleError: a held difference can't be converted to this form at this level.
        """
        if not self.calls and self._held and self._held[1] > 0:
            eps, steps = self._held
            self._held = eps, steps - 1
            return convert_difference(eps, level, "epsilon", form), self._lam
        difference = guided_difference(output, self.calls)
        if difference is None:
            return None
        lam = torch.as_tensor(self.calls[0].lams[0], dtype=torch.float64, device="cpu")
        self._lam = lam[: len(output)] if lam.ndim else lam.expand(len(output))
        steps = max(call.steps_covered for call in self.calls)
        if steps > 1:
            self.is_exact = False
            self._held = convert_difference(difference, level, form, "epsilon"), steps - 1
        return difference, self._lam


def guided_difference(output: Tensor, calls: Sequence[DenoiserCall]) -> Tensor | None:
    """Aligned − reference of the model output that a scheduler receives.

    Args:
        output: the model output, ``[batch, ...]``.
        calls: of the denoiser since the last step.

    Returns:
        Float64 ``[batch, ...]`` on the CPU; None if the output is not a linear combination of the predictions.
    """
    branches = [branch for call in calls for branch in _branches(call, output)]
    if not branches:
        return None
    mixtures, differences = (torch.stack(parts, dim=1) for parts in zip(*branches, strict=True))  # (B, branches, ...)
    target = output.detach().cpu().double()
    coefficients = _least_squares(mixtures.flatten(2), target.flatten(1))
    fitted = torch.einsum("bk,bk...->b...", coefficients, mixtures)
    if (fitted - target).flatten(1).norm(dim=1).gt(_TOLERANCE * target.flatten(1).norm(dim=1)).any():
        return None
    return torch.einsum("bk,bk...->b...", coefficients, differences)


def _least_squares(basis: Tensor, target: Tensor) -> Tensor:
    """Coefficients ``[batch, K]`` of targets ``[batch, N]`` on K vectors each, of minimal norm."""
    gram = basis @ basis.transpose(1, 2)
    return (torch.linalg.pinv(gram, hermitian=True) @ basis @ target[..., None])[..., 0]


def _branches(call: DenoiserCall, output: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Mixture and difference, each ``[batch, ...]``, of each guidance branch in a call."""
    values = (call.mixture, call.predictions.get(0), call.predictions.get(1))
    mixture, reference, aligned = (_rows(value, output) for value in values)
    if mixture is None or reference is None or aligned is None:  # a call that fills a cache
        return
    for start in range(0, len(mixture), len(output)):
        part = slice(start, start + len(output))
        yield mixture[part], aligned[part] - reference[part]


def _rows(prediction: Any, output: Tensor) -> Tensor | None:
    """The rows of a prediction, each in the shape of the output's; None if they don't fit it."""
    value: Any = prediction if isinstance(prediction, Tensor | list | None) else prediction[0]
    if isinstance(value, list):
        value = torch.stack(value)
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) % len(output):
        return None
    shape = output.shape[1:]
    if value.shape[2:] == shape[1:] and value.shape[1] > shape[0]:  # variances or image tokens, which pipelines cut off
        value = value[:, : shape[0]]
    if value[0].numel() != output[0].numel():
        return None
    return value.detach().cpu().double().reshape(-1, *shape)
