"""Realignment with a LoRA: one model, called with and without the LoRA.

The LoRA's layers are forward hooks of torch on the model's modules. Off, they return nothing and the model is bitwise
the reference; no weight is patched, cast or copied, so it makes no difference how ComfyUI holds the weights (quantised,
offloaded, streamed).
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .lams import LamSchedule
from .lora import LowRankLayer
from .mixing import mix_predictions

KEY = "deradiff_lora"
Control = Mapping[str, list[Any]] | None


class SwitchableLora:
    """A LoRA beside the layers of one model; it is off except inside of ``switched_on``."""

    def __init__(self, layers: Mapping[str, Sequence[LowRankLayer]]) -> None:
        """``layers`` by the paths of the modules that they belong to."""
        self._layers = layers
        self._handles: list[RemovableHandle] = []
        self._is_on = False

    def attach(self, model: nn.Module) -> None:
        """Hooks the layers in, unless they are."""
        if not self._handles:
            self._handles = [
                model.get_submodule(path).register_forward_hook(partial(self._add, layers))
                for path, layers in self._layers.items()
            ]

    def detach(self) -> None:
        """Leaves the model as it was and frees the device's memory."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for layers in self._layers.values():
            for layer in layers:
                layer.release()

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        """The model's calls inside are the aligned model's."""
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def _add(self, layers: Sequence[LowRankLayer], module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
        if not self._is_on:
            return None
        for layer in layers:
            output = layer.add_to(output, module, args[0])
        return output


@dataclass(frozen=True)
class LoraAnchor:
    """One aligned model: the reference with a LoRA, and its lams."""

    lora: SwitchableLora
    schedule: LamSchedule


@dataclass(frozen=True)
class LoraMixture:
    """ComfyUI's APPLY_MODEL wrapper: calls the model once per anchor with weight, and once without any LoRA.

    The rows of a call are those of the batch, once for each conditioning that ComfyUI runs with them.
    """

    anchors: tuple[LoraAnchor, ...]

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Control = None,
        transformer_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The mixed denoised latents ``[rows, ...]`` at noise levels ``t``, ``[rows]``."""
        model = executor.class_obj
        options = {} if transformer_options is None else transformer_options
        conditionings = len(options.get("cond_or_uncond", [0]))
        sigmas = t[: len(x) // conditionings]
        lams = torch.stack([anchor.schedule.at(sigmas, model.model_sampling) for anchor in self.anchors])

        def predict() -> list[Tensor]:
            return [executor(x, t, c_concat, c_crossattn, copy_control(control), options, **kwargs)]

        def predict_with(lora: SwitchableLora) -> list[Tensor]:
            lora.attach(model)  # a clone's end may have ejected it from the model that they share
            with lora.switched_on():
                return predict()

        predict_aligned: list[Callable[[], list[Tensor]]] = [partial(predict_with, a.lora) for a in self.anchors]
        return mix_predictions(predict, predict_aligned, lams.repeat(1, conditionings))[0]


def copy_control(control: Control) -> Control:
    """A ControlNet's outputs in new lists: the model takes them out of their lists as it goes, and is called twice."""
    return None if control is None else {name: list(outputs) for name, outputs in control.items()}


def realign_with_lora(patcher: Any, layers: Mapping[str, Sequence[LowRankLayer]], schedule: LamSchedule) -> Any:
    """A clone of the patcher that samples ``reference + lam (with the LoRA - reference)``.

    On a patcher that is realigned with other LoRAs, all of them are mixed against the one reference.
    """
    earlier = [anchor for mixture in patcher.get_wrappers(WrappersMP.APPLY_MODEL, KEY) for anchor in mixture.anchors]
    anchors = (*earlier, LoraAnchor(SwitchableLora(layers), schedule))
    clone = patcher.clone()
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, LoraMixture(anchors))
    clone.set_injections(KEY, [_injection_of(anchor.lora) for anchor in anchors])
    return clone


def _injection_of(lora: SwitchableLora) -> PatcherInjection:
    return PatcherInjection(inject=lambda patcher: lora.attach(patcher.model), eject=lambda patcher: lora.detach())
