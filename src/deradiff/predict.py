"""Conversions between what denoisers predict: eps, v, x_0 and flow velocity.

Every form is a fixed combination ``y = p x_0 + q eps``, and so is ``x_t = alpha x_0 + sigma eps``:

    epsilon          eps                       (p, q) = (0, 1)
    sample           x_0                       (p, q) = (1, 0)
    v_prediction     alpha eps - sigma x_0     (p, q) = (-sigma, alpha)     (Salimans & Ho 2022, appendix D)
    flow_prediction  eps - x_0                 (p, q) = (-1, 1)

Eliminating the unknown pair, a target (r, s) is affine in a source (p, q): with ``D = alpha q - sigma p``,

    target = (D_target / D_source) · source + ((r q - s p) / D_source) · x_t.

D is alpha for epsilon, -sigma for sample, alpha² + sigma² for v and alpha + sigma for flow. So epsilon tells
nothing of x_0 where alpha = 0 (zero terminal SNR), sample nothing of eps where sigma = 0; v and flow always do.
"""

from torch import Tensor

from deradiff.errors import ScheduleError
from deradiff.noise import PREDICTION_TYPES, NoiseLevel, over_trailing


def convert(prediction: Tensor, x_t: Tensor, level: NoiseLevel, source: str, target: str) -> Tensor:
    """The same prediction in another form.

    Args:
        prediction: (B, ...), of form ``source``.
        x_t: (B, ...), the sample given to the network, ``alpha x_0 + sigma eps``.
        level: shape () or (B,), the noise level of ``x_t``.
        source: one of "epsilon", "v_prediction", "sample", "flow_prediction".
        target: likewise.

    Returns:
        (B, ...), in the dtype of ``prediction``; the tensor itself where source and target agree.

    Raises:
        ScheduleError: an unknown form, or a level at which the source does not determine the target.
    """
    if source == target:
        return prediction
    p, q = _weights(level, source)
    r, s = _weights(level, target)
    of_x_t = over_trailing((r * q - s * p) / _source_determinant(level, source), x_t)
    return convert_difference(prediction, level, source, target) + of_x_t.to(x_t.dtype) * x_t


def convert_difference(difference: Tensor, level: NoiseLevel, source: str, target: str) -> Tensor:
    """The difference of two predictions at the same ``x_t`` in another form: x_t cancels, a scale is left.

    Args:
        difference: (B, ...), a difference of two predictions of form ``source``.
        level: shape () or (B,).
        source: as in `convert`.
        target: as in `convert`.

    Returns:
        (B, ...), in the dtype of ``difference``.

    Raises:
        ScheduleError: as in `convert`.
    """
    if source == target:
        return difference
    scale = _determinant(level, target) / _source_determinant(level, source)
    return over_trailing(scale, difference).to(difference.dtype) * difference


def target(x_0: Tensor, eps: Tensor, level: NoiseLevel, form: str) -> Tensor:
    """What a network of a form is trained to predict: ``p x_0 + q eps``, (B, ...).

    Args:
        x_0: (B, ...).
        eps: (B, ...), the noise.
        level: shape () or (B,).
        form: as in `convert`.

    Raises:
        ScheduleError: an unknown form.
    """
    p, q = (over_trailing(weight, x_0).to(x_0.dtype) for weight in _weights(level, form))
    return p * x_0 + q * eps


def _weights(level: NoiseLevel, form: str) -> tuple[Tensor, Tensor]:
    """(p, q) of the form ``p x_0 + q eps``."""
    one, zero = level.alpha.new_ones(()), level.alpha.new_zeros(())
    forms = {
        "epsilon": (zero, one),
        "v_prediction": (-level.sigma, level.alpha),
        "sample": (one, zero),
        "flow_prediction": (-one, one),
    }
    if form not in forms:
        raise ScheduleError(f"{form!r} is no prediction form: expected one of {', '.join(PREDICTION_TYPES)}.")
    return forms[form]


def _determinant(level: NoiseLevel, form: str) -> Tensor:
    p, q = _weights(level, form)
    return level.alpha * q - level.sigma * p


def _source_determinant(level: NoiseLevel, form: str) -> Tensor:
    determinant = _determinant(level, form)
    if (determinant == 0).any():
        silent = "alpha = 0" if form == "epsilon" else "sigma = 0"
        raise ScheduleError(
            f"At {silent} a prediction of form {form!r} determines no other form: "
            "leave that level out, or use the nearest level above it."
        )
    return determinant
