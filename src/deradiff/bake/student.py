"""The student of a distillation: a trainable LoRA on the reference's denoiser that begins as the weights bake."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from deradiff.anchor.adapters import (
    adapter_layers,
    peft_metadata,
    remove_adapter,
    same_active,
    set_active,
    unchanged_otherwise,
)
from deradiff.anchor.module_tree import plain_name
from deradiff.bake.low_rank import LowRank
from deradiff.bake.weights import LoraUpdate

_NAME = "deradiff_student"


class Student:
    """A LoRA that :func:`attach_student` put on a denoiser; switched off unless inside of :meth:`active`.

    Attributes:
        denoiser: the network that carries it.
        parameters: its factors, in float32 whatever the network's dtype.
    """

    def __init__(self, denoiser: nn.Module, parameters: list[nn.Parameter]) -> None:
        self.denoiser, self.parameters = denoiser, parameters

    @contextmanager
    def active(self, *, on: bool = True) -> Generator[None]:
        """Inside the block the LoRA takes part in a forward, or doesn't; the user's own adapters stay as they are."""
        layers = adapter_layers(self.denoiser, _NAME)
        with same_active(layers):
            for layer in layers:
                set_active(layer, [name for name in layer.active_adapters if name != _NAME] + [_NAME] * on)
            yield

    @torch.no_grad()
    def factors(self) -> dict[str, LowRank]:
        """Copies of its layers' factors, on the CPU."""
        factors = {n: (layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight) for n, layer in _layers(self.denoiser)}
        return {name: LowRank(down.cpu().clone(), up.cpu().clone()) for name, (down, up) in factors.items()}


@contextmanager
def attach_student(pipe: Any, start: LoraUpdate, rank: int, seed: int) -> Generator[Student]:
    """A student on a pipeline's denoiser, of which nothing is left after the block.

    Args:
        pipe: the reference pipeline.
        start: what it begins as; names the denoiser and the layers.
        rank: of each layer, or that of ``start`` where it is larger.
        seed: of the factors beyond those of ``start``.
    """
    denoiser: Any = pipe.components[start.component]
    before = peft_metadata(denoiser)
    ranks = {name: max(rank, layer.rank) for name, layer in start.layers.items()}
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=dict(ranks)
    )
    with unchanged_otherwise(denoiser):
        denoiser.requires_grad_(False)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # PEFT initialises a LoRA from the global generator
                denoiser.add_adapter(config, adapter_name=_NAME)
            student = Student(denoiser, _trainable(denoiser, start))
            with student.active(on=False):
                yield student
        finally:
            remove_adapter(denoiser, _NAME, before)


@torch.no_grad()
def _trainable(denoiser: nn.Module, start: LoraUpdate) -> list[nn.Parameter]:
    """The LoRA's factors in float32, set to those of ``start``."""
    parameters: list[nn.Parameter] = []
    for name, layer in _layers(denoiser):
        down, up = layer.lora_A[_NAME].float().weight, layer.lora_B[_NAME].float().weight
        if known := start.layers.get(name):  # PEFT may take another layer whose name ends so, from zero
            down[: known.rank], up[:, : known.rank] = known.down.to(down), known.up.to(up)
        parameters += [down.requires_grad_(True), up.requires_grad_(True)]
    return parameters


def _layers(denoiser: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in denoiser.named_modules():
        if _NAME in getattr(module, "lora_A", {}):
            yield plain_name(name), module
