"""A LoRA's weights as what they add to the outputs of layers, whose own weights stay as they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .errors import RealignError

PatchKey = str | tuple[Any, ...]
"""A weight's name, or (name, slice or None, function of rows): how ComfyUI names a part of a fused weight."""

WHAT_INSTEAD = (
    "merge it into a checkpoint (Load LoRA, then Save Checkpoint) and use Realign with the reference and that one."
)
CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class WeightSlice:
    """A part of a fused weight: ``length`` rows (dim 0) or columns (dim 1) from ``start``."""

    dim: int
    start: int
    length: int


@dataclass
class LowRankLayer:
    """One up and down pair: adds ``up(mid(down(x)))`` to a layer's output.

    Attributes:
        up: ``[out, rank, ...]``, multiplied by alpha / rank.
        down: ``[rank, in, ...]``.
        mid: ``[rank, rank, kernel...]`` of a Tucker decomposition, or None.
        part: the part of a fused weight that the pair belongs to, or None for all of it.
    """

    up: Tensor
    down: Tensor
    mid: Tensor | None = None
    part: WeightSlice | None = None
    _cast: tuple[Tensor, ...] | None = field(default=None, repr=False)

    def add_to(self, output: Tensor, module: nn.Module, x: Tensor) -> Tensor:
        """A new tensor: the layer's output for ``x`` plus that of the pair."""
        features = -1 if is_linear(module) else 1
        part = self.part
        if part is not None and part.dim == 1:
            x = x.narrow(features, part.start, part.length)
        delta = self._forward(module, x).to(output.dtype)
        if part is None or part.dim == 1:
            return output + delta
        result = output.clone()
        result.narrow(features, part.start, part.length).add_(delta)
        return result

    def release(self) -> None:
        """Drops the copy on the device that the model ran on."""
        self._cast = None

    def _forward(self, module: nn.Module, x: Tensor) -> Tensor:
        down, up, *mid = self._on(x)
        if is_linear(module):
            return F.linear(F.linear(x, down), up)
        convolve = CONVOLUTIONS[x.ndim - 2]
        geometry = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
        if mid:
            return convolve(convolve(convolve(x, down), mid[0], **geometry), up)
        return convolve(convolve(x, down, **geometry), up)

    def _on(self, x: Tensor) -> tuple[Tensor, ...]:
        """Down, up and mid where ``x`` is; kept, since every step needs them there."""
        if self._cast is None or (self._cast[0].device, self._cast[0].dtype) != (x.device, x.dtype):
            weights = (self.down, self.up) if self.mid is None else (self.down, self.up, self.mid)
            self._cast = tuple(weight.to(x.device, x.dtype) for weight in weights)
        return self._cast


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer; quantised ones need not derive from torch's."""
    return hasattr(module, "in_features") and hasattr(module, "out_features")


def is_convolution(module: nn.Module) -> bool:
    """Whether it is a convolution that a low-rank pair can run beside."""
    zeros = getattr(module, "padding_mode", "zeros") == "zeros"
    single = getattr(module, "groups", 1) == 1 and not getattr(module, "transposed", False)
    return hasattr(module, "kernel_size") and hasattr(module, "in_channels") and zeros and single


def layers_from_patches(patches: Mapping[PatchKey, Any], model: nn.Module) -> dict[str, list[LowRankLayer]]:
    """The low-rank layers of a LoRA by the path of the module that each belongs to.

    Args:
        patches: what ComfyUI's ``comfy.lora.load_lora`` makes of a file: weight keys of the model to adapters.
        model: ComfyUI's model, whose modules the keys name.

    Raises:
        RealignError: nothing in the file fits the model, or something can't run beside a layer.
    """
    if not patches:
        raise RealignError(
            "No weight of this LoRA fits the model; choose a LoRA that was trained for this architecture."
        )
    layers: dict[str, list[LowRankLayer]] = {}
    for key, adapter in patches.items():
        name, part, row_function = _split_key(key)
        path = name.removesuffix(".weight")
        module = _find_layer(model, name, path)
        layers.setdefault(path, []).append(_build_layer(name, adapter, module, part, row_function))
    return layers


def _split_key(key: PatchKey) -> tuple[str, WeightSlice | None, Callable[[Tensor], Tensor] | None]:
    if isinstance(key, str):
        return key, None, None
    name, part, *row_function = key
    return name, None if part is None else WeightSlice(*part), row_function[0] if row_function else None


def _find_layer(model: nn.Module, name: str, path: str) -> nn.Module:
    module = model.get_submodule(path) if name != path else None
    if module is None or not (is_linear(module) or is_convolution(module)):
        kind = "no weight of a layer" if module is None else f"a {type(module).__name__}"
        raise RealignError(
            f"This LoRA changes {name}, {kind}, and only linear layers and convolutions can be realigned; "
            f"{WHAT_INSTEAD}"
        )
    return module


def _build_layer(
    name: str,
    adapter: Any,
    module: nn.Module,
    part: WeightSlice | None,
    row_function: Callable[[Tensor], Tensor] | None,
) -> LowRankLayer:
    up, down, alpha, mid = _low_rank_weights(name, adapter)
    _check_shape(name, up, down, mid, module, part)
    up = up.float() * (1.0 if alpha is None else alpha / down.shape[0])
    if row_function is not None:
        up = row_function(up)  # ComfyUI's exchange rows of the weight, which are those of up
    if is_linear(module):
        up = up.flatten(1) if mid is None else up.flatten(1) @ mid.flatten(1).float()
        return LowRankLayer(up, down.flatten(1), part=part)
    kernel = _kernel_of(module)
    ones = (1,) * len(kernel)
    # pairs of 1x1 convolutions are often saved as matrices
    down = down.reshape(len(down), -1, *(kernel if mid is None else ones))
    return LowRankLayer(up.reshape(len(up), -1, *ones), down, mid, part)


def _low_rank_weights(name: str, adapter: Any) -> tuple[Tensor, Tensor, float | None, Tensor | None]:
    # ComfyUI's other changes of a weight are tuples that start with their kind
    kind: str = getattr(adapter, "name", None) or adapter[0]
    if kind != "lora":
        raise RealignError(f'This LoRA changes {name} by "{kind}", not by a low-rank up and down pair; {WHAT_INSTEAD}')
    up, down, alpha, mid, dora_scale, reshape = adapter.weights
    if dora_scale is not None or reshape is not None:
        kind = "DoRA's normalisation" if dora_scale is not None else "a weight of another shape"
        raise RealignError(f"This LoRA changes {name} by {kind}, which can't run beside a layer; {WHAT_INSTEAD}")
    return up, down, alpha, mid


def _kernel_of(module: nn.Module) -> tuple[int, ...]:
    return () if is_linear(module) else tuple(getattr(module, "kernel_size"))  # noqa: B009


def _check_shape(
    name: str, up: Tensor, down: Tensor, mid: Tensor | None, module: nn.Module, part: WeightSlice | None
) -> None:
    names = ("out_features", "in_features") if is_linear(module) else ("out_channels", "in_channels")
    expected = [getattr(module, attribute) for attribute in names]
    if part is not None:
        expected[part.dim] = part.length
    kernel = _kernel_of(module)
    inputs_per_feature = 1 if mid is not None else prod(kernel)
    fits = [len(up), down[0].numel()] == [expected[0], expected[1] * inputs_per_feature]
    if not fits or (mid is not None and tuple(mid.shape[2:]) != kernel):
        shapes = ", ".join(str(tuple(weight.shape)) for weight in (up, down, mid) if weight is not None)
        raise RealignError(
            f"This LoRA holds weights of shapes {shapes} for {name}, where the model maps {expected[1]} to "
            f"{expected[0]} features; choose a LoRA that was trained for this architecture."
        )
