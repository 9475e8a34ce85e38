"""Mixing what denoisers return: tensors, lists with one tensor a row, tuples and diffusers' output dataclasses."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from deradiff.anchor.state import is_state
from deradiff.mixture import coefficients, combine

Lam = float | Tensor


def active_models(lams: Sequence[Lam]) -> list[int]:
    """The models that have weight in some row: 0 is the reference, 1..K the anchors."""
    return [index for index, weight in enumerate(coefficients(lams)) if _any(weight)]


def _any(weight: Lam) -> bool:
    return bool((weight != 0).any()) if isinstance(weight, Tensor) else weight != 0


def mix(outputs: Mapping[int, Any], lams: Sequence[Lam]) -> Any:
    """Mix the outputs of several models, ``ref + sum_k lam_k (aligned_k - ref)`` in every prediction they hold.

    Args:
        outputs: by model; at least those that :func:`active_models` names.
        lams: one an anchor, each a float or one value a row, shape (B,).

    Returns:
        An output of the same structure; a model that alone has weight comes back untouched.
    """
    weights = coefficients(lams)
    asked = active_models(lams)
    if len(asked) == 1:
        return outputs[asked[0]]
    first = min(outputs)
    return _mix([outputs.get(index) for index in range(len(weights))], weights, outputs[first])


def _mix(values: list[Any], weights: list[Lam], like: Any) -> Any:
    def part(key: Any) -> Any:
        return _mix([None if value is None else value[key] for value in values], weights, like[key])

    if isinstance(like, Tensor):
        return combine(values, weights) if like.is_floating_point() else like
    if isinstance(like, list):  # one tensor a row
        return [_mix_row(row, values, weights) for row in range(len(like))]
    if isinstance(like, tuple):
        return tuple(like[i] if is_state(like[i]) else part(i) for i in range(len(like)))
    if isinstance(like, Mapping):
        fields = {key: like[key] if is_state(like[key]) else part(key) for key in like}
        return type(like)(**fields)  # pyright: ignore[reportCallIssue]
    return like


def _mix_row(row: int, values: list[Any], weights: list[Lam]) -> Tensor:
    own = [weight[row].item() if isinstance(weight, Tensor) and weight.ndim else weight for weight in weights]
    return combine([None if value is None else value[row] for value in values], own)
