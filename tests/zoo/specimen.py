"""What the zoo keeps: a tiny random pipeline of a real diffusers class, how to call it, and an anchor for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn


def first(output: Any) -> Tensor:
    """The first field of a pipeline's output."""
    return output[0]


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """A pipeline family.

    ``build`` makes the same pipeline each time. ``call(n)`` gives everything but the generator that makes n
    images, each of its own conditioning. ``images`` reads the tensor of raw values, one row an image.
    """

    name: str
    build: Callable[[], DiffusionPipeline]
    call: Callable[[int], dict[str, Any]]
    components: tuple[str, ...] = ("unet",)
    images: Callable[[Any], Tensor] = first
    generators: bool = True
    """Whether ``generator`` may be a list with one generator an image."""
    prompts: bool = False
    """Whether the pipeline has text encoders, so that it takes strings."""


def anchor_of(module: nn.Module, seed: int = 1, strength: float = 0.3) -> nn.Module:
    """A copy of a network with noise on every parameter: of another output, but still finite."""
    anchor = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in anchor.parameters():
            spread = parameter.float().std().item() if parameter.numel() > 1 else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * strength * max(spread, 0.05))
    return anchor
