"""Holding LoRA anchors in one mixed batch: a single forward in which each row is routed through its model's adapter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from deradiff.anchor.adapters import active_adapters, adapter_layers, refuse_others, switched
from deradiff.anchor.inputs import batch_rows, stack_copies, take_copy
from deradiff.anchor.state import has_state
from deradiff.errors import RealignError

Call = Callable[..., Any]
# Networks on which tests hold that one mixed batch predicts what separate passes do; others mix rows, or refuse them.
_BATCHED = ("UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel")


class MixedBatch:
    """All models in a single forward: rows of the reference and of each anchor's LoRA side by side."""

    def __init__(self, denoiser: nn.Module, names: Sequence[str]) -> None:
        self.denoiser, self.names = denoiser, ["__base__", *names]  # PEFT's name for "no adapter"

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], which: Sequence[int]) -> dict[int, Any]:
        """Stack the inputs, route each row through its model's adapter, and take the outputs apart.

        The copies of a row stand side by side, so that networks which split the batch by branches of guidance (PAG) or
        fold frames into it still see the order they expect.
        """
        if has_state(kwargs):
            raise RealignError("mode='batch' can't split a key-value cache between models; realign with mode='switch'")
        rows, copies = batch_rows(args, kwargs), len(which)
        stacked_args, stacked_kwargs = stack_copies((args, kwargs), rows, copies)
        refuse_others(self.denoiser, self.names[1:])
        routes = [self.names[index] for index in which]
        with switched(self.denoiser, on=self.names[1:], off=[]), _routed(self.denoiser, rows, routes):
            output = call(*stacked_args, **stacked_kwargs)
        return {index: take_copy(output, place, rows, copies) for place, index in enumerate(which)}

    def rest(self) -> None:
        """Nothing to do: adapters travel with the denoiser."""


@contextmanager
def _routed(denoiser: nn.Module, rows: int, names: Sequence[str]) -> Iterator[None]:
    def route(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        size, stacked = len(args[0]), rows * len(names)
        spatial = args[0].ndim > 2
        if size == stacked or (spatial and size < stacked and size % len(names) == 0):  # PAG: some branches of guidance
            own = [*names] * (size // len(names))
        elif spatial and size % stacked == 0:  # frames or views folded into the batch
            own = [name for _ in range(rows) for name in names for _ in range(size // stacked)]
        else:  # tokens of several rows, gathered by experts or laid end to end
            raise RealignError(
                f"mode='batch' needs every layer to see each row of the batch, but {type(layer).__name__} got {size} "
                f"for {stacked}; realign with mode='switch'"
            )
        return args, {**kwargs, "adapter_names": own}

    layers = [layer for layer in adapter_layers(denoiser) if isinstance(layer, nn.Module)]
    hooks = [layer.register_forward_pre_hook(route, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def batch_obstacle(denoiser: nn.Module, names: Sequence[str]) -> str | None:
    """Why the anchors' LoRAs can't share one forward, or None where they can."""
    others = active_adapters(denoiser) - set(names)
    if others:
        return f"the adapter {', '.join(sorted(others))} is active too, and PEFT routes a row through one adapter only"
    for name in names:
        for layer in adapter_layers(denoiser, name):
            if not hasattr(layer, "_mixed_batch_forward"):
                return f"the adapter {name} has layers of type {type(layer).__name__}, which can't be mixed in a batch"
            if getattr(layer, "lora_variant", {}).get(name):
                return f"the adapter {name} is a LoRA variant (DoRA or kin), which can't be mixed in a batch"
    return None


def batch_pays(denoiser: nn.Module) -> bool:
    """Whether one larger forward beats two, on accelerators, for networks that take any stack of rows."""
    return next(denoiser.parameters()).device.type != "cpu" and type(denoiser).__name__ in _BATCHED
