"""Mixing what denoisers return: tensors, lists with one tensor a row, tuples and diffusers' output dataclasses."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from deradiff.acceleration.policies import active_models
from deradiff.anchor.inputs import DenoiserInputs, map_tree
from deradiff.anchor.state import is_state
from deradiff.errors import LamError
from deradiff.mixture import coefficients, combine
from deradiff.realignment.variance import has_learned_variance, mix_with_variance

Lam = float | Tensor


def mix_outputs(inputs: DenoiserInputs, outputs: Mapping[int, Any], lams: Sequence[Lam], scheduler: Any) -> Any:
    """The geometric mixture of the reverse steps that models predict, as an output of the denoiser.

    Args:
        inputs: of the call.
        outputs: by model; at least of those that :func:`active_models` names.
        lams: for each anchor a float, or one a row ``[rows]``.
        scheduler: that reads the output.

    Raises:
        LamError: several anchors where variances are learned, or a lam so large that the mixture doesn't exist.
    """
    prediction = _first(next(iter(outputs.values())))
    if len(active_models(lams)) < 2 or not has_learned_variance(scheduler, inputs.sample, prediction):
        return mix(outputs, lams)
    if len(lams) > 1:
        raise LamError(
            f"the denoiser predicts its variance, where one anchor at a time can be mixed; got {len(lams)} anchors"
        )
    mixed = mix_with_variance(_first(outputs[0]), _first(outputs[1]), lams[0], scheduler, inputs.timestep)
    return _replace_first(outputs[0], mixed)


def mix(outputs: Mapping[int, Any], lams: Sequence[Lam]) -> Any:
    """``ref + sum_k lam_k (aligned_k - ref)`` of every prediction that outputs hold.

    Args:
        outputs: by model; at least of those that :func:`active_models` names.
        lams: for each anchor a float, or one a row ``[rows]``.

    Returns:
        An output of the same structure; that of a model that alone has weight comes back untouched.
    """
    active = active_models(lams)
    if len(active) == 1:
        return outputs[active[0]]
    weights, models = coefficients(lams), sorted(outputs)
    whole = outputs[models[0]]

    def combined(parts: Sequence[Tensor], row: int | None = None) -> Tensor:
        by_model = dict(zip(models, parts, strict=True))
        used = weights if row is None else [_at_row(weight, row) for weight in weights]
        return combine([by_model.get(k) for k in range(len(weights))], used)

    def leaf(*parts: Any) -> Any:
        first = parts[0]
        if isinstance(first, list):  # one tensor a row
            return [combined(row_parts, row) for row, row_parts in enumerate(zip(*parts, strict=True))]
        return combined(parts) if isinstance(first, Tensor) and first.is_floating_point() else first

    def is_leaf(part: Any) -> bool:
        return isinstance(part, list) or (part is not whole and is_state(part))

    return map_tree(leaf, *(outputs[k] for k in models), is_leaf=is_leaf)


def _at_row(weight: Lam, row: int) -> Lam:
    return weight[row].item() if isinstance(weight, Tensor) and weight.ndim else weight


def _first(output: Any) -> Any:
    """The prediction in an output."""
    if isinstance(output, Tensor | list):
        return output
    return next(iter(output.values())) if isinstance(output, Mapping) else output[0]


def _replace_first(output: Any, prediction: Tensor) -> Any:
    if isinstance(output, Tensor):
        return prediction
    if isinstance(output, Mapping):
        first = next(iter(output))
        kind: Any = type(output)  # a dataclass of diffusers, which takes its fields by name
        return kind(**{**output, first: prediction})
    return (prediction, *output[1:])
