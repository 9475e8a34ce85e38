"""A tiny pipeline with random anchors, and what it makes of two prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.realignment import loras
from tests.zoo import ZOO, anchor_of
from torch import Tensor

ALL = ("to_q", "to_k", "conv1", "proj_in")  # linear layers and convolutions
PROMPTS = ("a red circle", "a blue square")


def build() -> Any:
    pipe: Any = ZOO["sd"].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def lora(pipe: Any, folder: Path, seed: int = 3, rank: int = 2, layers: tuple[str, ...] = ALL) -> str:
    return str(loras.save(pipe, "unet", folder, layers, seed=seed, rank=rank))


def full(pipe: Any, seed: int = 1) -> Any:
    return anchor_of(pipe.unet, seed)


def latents(pipe: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return pipe(
        prompt=list(PROMPTS), generator=generators, num_inference_steps=3, height=32, width=32, output_type="latent"
    ).images


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())
