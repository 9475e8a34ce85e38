"""What pipelines are given: prompts, embeddings and pictures that depend on their names alone."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

WIDTH = 16
"""The width of every text embedding."""
TOKENS = 7
"""The length of every text embedding."""
COMMON: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "height": 32, "width": 32}


def draw(name: str, *shape: int) -> Tensor:
    """Normal values that depend on the name alone; the first rows don't change with their number."""
    rows = [
        torch.randn(shape[1:], generator=torch.Generator().manual_seed(zlib.crc32(f"{name}{row}".encode())))
        for row in range(shape[0])
    ]
    return torch.stack(rows)


def mask(n: int) -> Tensor:
    """An attention mask: the second half of all prompts, but the first token of it, is padding."""
    return (torch.arange(TOKENS) <= TOKENS // 2).long().expand(n, -1).clone()


def embeds(n: int, *, masked: bool = False, pooled: bool = False, negative: bool = True) -> dict[str, Any]:
    """Text embeddings, as most pipelines name them."""
    given: dict[str, Any] = {}
    for sign in ("", "negative_") if negative else ("",):
        given[f"{sign}prompt_embeds"] = draw(f"{sign}embeds", n, TOKENS, WIDTH)
        if masked:
            given[f"{sign}prompt_attention_mask"] = mask(n)
        if pooled:
            given[f"{sign}pooled_prompt_embeds"] = draw(f"{sign}pooled", n, WIDTH)
    return given


def picture(name: str, n: int, size: int = 32) -> Tensor:
    """n images with values in [0, 1]."""
    return draw(name, n, 3, size, size).sigmoid()


def prompts(n: int) -> list[str]:
    """Distinct prompts."""
    return [f"a {colour} square" for colour in ("red", "green", "blue", "black", "white")][:n]
