"""What must hold before a reference and an anchor may be mixed."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from deradiff.anchor.module_tree import ModuleTree, weights_of
from deradiff.errors import AnchorError, RealignError

# Config entries that say where a model came from, which image size it defaults to, or how it trains, but not what it
# computes.
_INCIDENTAL = {"sample_size", "encoder_hid_dim_type", "dropout"}
_SYNONYMS = {"swish": "silu"}
# Scheduler entries that define the noise a network was trained on and what it predicts.
_TRAINED = (
    "prediction_type",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


def check_same_network(reference: nn.Module, anchor: nn.Module, component: str) -> None:
    """Raise AnchorError unless the two are networks of one class, one configuration, one dtype and equal shapes."""
    if anchor is reference:
        raise AnchorError(
            f"the anchor is the pipe's own {component}; pass the aligned network, or the name of a LoRA loaded on it"
        )
    class_given, class_expected = type(anchor).__name__, type(reference).__name__
    if class_given != class_expected:
        raise AnchorError(
            f"the anchor is a {class_given}, but {component} is a {class_expected}; both must be the same"
        )
    _check_config(_config(reference), _config(anchor), component)
    check_same_quantisation(reference, anchor, component)
    _check_shapes(_shapes(reference), _shapes(anchor), component)
    weights = weights_of(anchor)
    for name, value in weights_of(reference).items():
        if name in weights and weights[name].dtype != value.dtype:
            raise AnchorError(
                f"the anchor is {weights[name].dtype}, but {component} is {value.dtype} (at {name}); both must be the "
                f"same: convert it with anchor.to({value.dtype})"
            )


def check_swappable(tree: ModuleTree) -> None:
    """Raise RealignError where layers fetch or cast their weights, and would overwrite or change what is swapped in."""
    if tree.casts_weights:
        raise RealignError(
            "layerwise casting would cast the anchor's own weights to and fro, so a full anchor can't be run through "
            "it; leave it off, or give an anchor in LoRA form"
        )
    if tree.streams_weights:
        raise RealignError(
            "sequential or group offload fetches the reference's weights layer by layer, so a full anchor can't be run "
            "through it; use pipe.enable_model_cpu_offload(), or an anchor in LoRA form"
        )


def quantisation_of(value: Tensor) -> str | None:
    """How a weight is quantised, as ``"GGUFParameter"`` or ``"torch.int8"``; None where it is a plain tensor.

    Quantisers pack weights into classes of tensors of their own, or into integers.
    """
    if type(value).__module__.partition(".")[0] != "torch":
        return type(value).__name__
    packed = isinstance(value, nn.Parameter) and not (value.is_floating_point() or value.is_complex())
    return str(value.dtype) if packed else None


def quantised_weight(module: nn.Module) -> str | None:
    """The first quantised weight of a network and how, as ``"conv_in.weight is a GGUFParameter"``; None without one."""
    kinds = ((name, quantisation_of(value)) for name, value in weights_of(module).items())
    return next((f"{name} is a {kind}" for name, kind in kinds if kind), None)


def check_same_quantisation(reference: nn.Module, anchor: nn.Module, component: str) -> None:
    """Raise AnchorError unless the weights of both are quantised alike, by a quantiser that keeps nothing elsewhere."""
    weights, kept_in_layers = weights_of(anchor), "bitsandbytes"
    for name, value in weights_of(reference).items():
        if name not in weights or ".lora_" in name:
            continue
        expected, actual = quantisation_of(value), quantisation_of(weights[name])
        if expected != actual:
            raise AnchorError(
                f"{name} is {_kind(actual)} in the anchor, but {_kind(expected)} in {component}: the mixture would "
                "hold the error of quantisation; quantise both models alike, or give the anchor as a LoRA (deradiff "
                "extract-lora makes one)"
            )
        if kept_in_layers in type(value).__module__:
            raise AnchorError(
                f"{component} is quantised by {kept_in_layers}, which keeps scales of the weights in its layers, so a "
                "full anchor's weights can't be run through them; give the anchor as a LoRA (deradiff extract-lora "
                "makes one)"
            )


def _kind(quantisation: str | None) -> str:
    return "not quantised" if quantisation is None else f"quantised ({quantisation})"


def _config(module: nn.Module) -> dict[str, Any]:
    """The entries of a network's config that its class reads, at their defaults where absent."""
    config: Mapping[str, Any] = getattr(module, "config", {})
    if not config:
        return {}
    parameters = inspect.signature(type(module).__init__).parameters
    read = {name: parameter.default for name, parameter in parameters.items() if name not in {"self", *_INCIDENTAL}}
    return {name: config.get(name, default) for name, default in read.items()}


def _check_config(expected: dict[str, Any], actual: dict[str, Any], component: str) -> None:
    different = [k for k in sorted({*expected, *actual}) if _meaning(expected.get(k)) != _meaning(actual.get(k))]
    if different:
        shown = ", ".join(f"{k} = {actual.get(k)!r} (expected {expected.get(k)!r})" for k in different[:4])
        raise AnchorError(f"the anchor has another architecture than {component}: {shown}")


def _meaning(value: Any) -> Any:
    """A value such that two that mean the same are equal: None is False, one value a block is a list of equal ones."""
    if isinstance(value, list | tuple):
        values = [_meaning(item) for item in value]
        return values[0] if values and all(item == values[0] for item in values) else values
    return False if value is None else _SYNONYMS.get(value, value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the base weights; adapters and image-prompt layers are no part of the architecture."""
    shapes = {name: tuple(value.shape) for name, value in weights_of(module).items()}
    return {n: s for n, s in shapes.items() if not any(part in n for part in (".lora_", ".processor.", "encoder_hid"))}


def _check_shapes(expected: dict[str, tuple[int, ...]], actual: dict[str, tuple[int, ...]], component: str) -> None:
    for name in sorted({*expected, *actual}):
        if expected.get(name) != actual.get(name):
            raise AnchorError(
                f"the anchor has another architecture than {component}: {name} has shape {actual.get(name)}, "
                f"expected {expected.get(name)}"
            )


def check_same_schedule(reference: Mapping[str, Any], anchor: Mapping[str, Any]) -> None:
    """Raise AnchorError where two scheduler configs disagree on the training noise or on what is predicted."""
    for key in _TRAINED:
        actual, expected = anchor.get(key), reference.get(key)
        if key in reference and key in anchor and _plain(actual) != _plain(expected):
            raise AnchorError(
                f"the anchor was trained with {key} = {actual!r}, but the pipe's scheduler has {expected!r}; "
                "both models must predict the same quantity under the same noise schedule"
            )
