"""The model in training and its frozen reference: one set of weights with a LoRA, two in full training."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor, nn

from deradiff.align.settings import Settings
from deradiff.anchor.adapters import adapter_names, toggled
from deradiff.anchor.module_tree import ModuleTree
from deradiff.errors import AlignError

NAME = "deradiff"


class Policy:
    """A denoiser that learns.

    Attributes:
        denoiser: the network in training.
        config: of its LoRA; None where all weights are trained.
        trained: parameters that learn, by name, in float32.
    """

    def __init__(self, denoiser: nn.Module, settings: Settings) -> None:
        self.denoiser: Any = denoiser
        self.config = None if settings.full else _add_lora(self.denoiser, settings)
        self.tree = ModuleTree(denoiser)
        self.frozen = copy.deepcopy(denoiser).requires_grad_(False) if settings.full else None
        if settings.full:
            self.denoiser.requires_grad_(True).float()
        else:
            cast_training_params(self.denoiser)
        self.trained = {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}
        if settings.gradient_checkpointing:
            self.denoiser.enable_gradient_checkpointing()

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The network as it was before training, in the block; nothing is recorded for gradients."""
        with torch.no_grad():
            if self.frozen is not None:
                yield self.frozen
                return
            self.tree.refresh()
            with toggled(self.tree, on=[], off=[NAME]):
                yield self.denoiser

    def state(self) -> dict[str, Tensor]:
        """Trained parameters by name."""
        return {name: parameter.detach().cpu() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Set trained parameters."""
        for name, parameter in self.trained.items():
            parameter.copy_(state[name])


def _add_lora(denoiser: Any, settings: Settings) -> LoraConfig:
    if adapter_names(denoiser):
        raise AlignError(
            f"the pipeline has the adapters {', '.join(adapter_names(denoiser))} loaded; fuse them "
            "(pipe.fuse_lora()) or unload them first, for the reference is the pipeline as it is without"
        )
    config = LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=list(settings.target_modules))
    denoiser.requires_grad_(False)
    torch.manual_seed(settings.seed)  # PEFT draws a LoRA's first weights from the global generator
    try:
        denoiser.add_adapter(config, adapter_name=NAME)
    except ValueError as error:
        raise AlignError(f"no LoRA on the layers {', '.join(settings.target_modules)}: {error}") from error
    return config
