"""Conversions between prediction forms: eps, v, x_0 and flow velocity. Notation: see `deradiff.noise`.

Every form is a fixed combination ``y = p x_0 + q eps``, and so is ``x_t = alpha x_0 + sigma eps``:

    epsilon          eps                       (p, q) = (0, 1)
    sample           x_0                       (p, q) = (1, 0)
    v_prediction     alpha eps - sigma x_0     (p, q) = (-sigma, alpha)     (Salimans & Ho 2022, appendix D)
    flow_prediction  eps - x_0                 (p, q) = (-1, 1)

Eliminating the unknown pair, a target (r, s) is affine in a source (p, q): with ``D = alpha q - sigma p``,

    target = (D_target / D_source) · source + ((r q - s p) / D_source) · x_t.

D is alpha for epsilon, -sigma for sample, alpha² + sigma² for v and alpha + sigma for flow. So epsilon does
not determine x_0 where alpha = 0 (zero terminal SNR), and sample does not determine eps where sigma = 0. v and flow
determine both everywhere.
"""

from torch import Tensor

from deradiff.errors import ScheduleError
from deradiff.noise import PREDICTION_TYPES, NoiseLevel, append_dims


def convert(prediction: Tensor, x_t: Tensor, level: NoiseLevel, source: str, target: str) -> Tensor:
    """Convert a prediction to another form.

    Args:
        prediction: ``[batch, ...]``, of form ``source``.
        x_t: ``[batch, ...]``, the network's input ``alpha x_0 + sigma eps``.
        level: noise level of ``x_t``, ``[]`` or ``[batch]``.
        source: "epsilon", "v_prediction", "sample" or "flow_prediction".
        target: likewise.

    Returns:
        ``[batch, ...]``, in the dtype of ``prediction``; the tensor itself if source and target agree.

    Raises:
        ScheduleError: an unknown form, or a level at which the source does not determine the target.
    """
    if source == target:
        return prediction
    p, q = _form_coefficients(level, source)
    r, s = _form_coefficients(level, target)
    x_t_coefficient = append_dims((r * q - s * p) / _source_determinant(level, source), x_t)
    return convert_difference(prediction, level, source, target) + x_t_coefficient.to(x_t.dtype) * x_t


def convert_difference(difference: Tensor, level: NoiseLevel, source: str, target: str) -> Tensor:
    """Convert the difference of two predictions at the same ``x_t`` to another form: x_t cancels, a scale remains.

    Args:
        difference: ``[batch, ...]``, a difference of two predictions of form ``source``.
        level: noise level of ``x_t``, ``[]`` or ``[batch]``.
        source: as in `convert`.
        target: as in `convert`.

    Returns:
        ``[batch, ...]``, in the dtype of ``difference``.

    Raises:
        ScheduleError: as in `convert`.
    """
    if source == target:
        return difference
    scale = _determinant(level, target) / _source_determinant(level, source)
    return append_dims(scale, difference).to(difference.dtype) * difference


def training_target(x_0: Tensor, eps: Tensor, level: NoiseLevel, form: str) -> Tensor:
    """The regression target of a network that predicts a form: ``p x_0 + q eps``, ``[batch, ...]``.

    Args:
        x_0: clean latents ``[batch, ...]``.
        eps: noise ``[batch, ...]``.
        level: noise level, ``[]`` or ``[batch]``.
        form: as in `convert`.

    Raises:
        ScheduleError: an unknown form.
    """
    p, q = (append_dims(coefficient, x_0).to(x_0.dtype) for coefficient in _form_coefficients(level, form))
    return p * x_0 + q * eps


def _form_coefficients(level: NoiseLevel, form: str) -> tuple[Tensor, Tensor]:
    """(p, q) of the form ``p x_0 + q eps``."""
    one, zero = level.alpha.new_ones(()), level.alpha.new_zeros(())
    forms = {
        "epsilon": (zero, one),
        "v_prediction": (-level.sigma, level.alpha),
        "sample": (one, zero),
        "flow_prediction": (-one, one),
    }
    if form not in forms:
        raise ScheduleError(f"{form!r} is not a prediction form: expected one of {', '.join(PREDICTION_TYPES)}.")
    return forms[form]


def _determinant(level: NoiseLevel, form: str) -> Tensor:
    p, q = _form_coefficients(level, form)
    return level.alpha * q - level.sigma * p


def _source_determinant(level: NoiseLevel, form: str) -> Tensor:
    determinant = _determinant(level, form)
    if (determinant == 0).any():
        where = "alpha = 0" if form == "epsilon" else "sigma = 0"
        raise ScheduleError(
            f"At {where} a prediction of form {form!r} determines no other form: "
            "leave that level out, or use the nearest level above it."
        )
    return determinant
