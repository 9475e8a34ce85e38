"""Final latents of prompts from given noise, and how far those of one pipeline are from those of another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deradiff.errors import BakeError
from deradiff.realignment.lams import LamLike
from deradiff.runs.models import call
from deradiff.runs.recipe import Recipe
from deradiff.sampling import final_latents


def sample(
    pipe: Any,
    recipe: Recipe,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float | None,
    *,
    advance: Callable[[int], object] = lambda count: None,
    **settings: Any,
) -> tuple[Tensor, list[Any]]:
    """Sample P prompts, a batch at a time.

    Args:
        pipe: as it is, realigned or not.
        recipe: gives steps, size and batch size.
        prompts: one an image.
        seeds: of each image's noise.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        advance: receives the number of images sampled since its last call.
        settings: whatever else the pipeline takes, such as ``output_type``.

    Returns:
        Final latents ``[P, ...]``, float32 on the CPU, and what the pipeline returns as images.
    """
    latents: list[Tensor] = []
    images: list[Any] = []
    for first in range(0, len(prompts), recipe.batch_size):
        rows = slice(first, first + recipe.batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[rows]]
        with final_latents(pipe) as final:
            images += call(pipe, recipe, prompts[rows], generators, guidance, **settings)
        latents.append(final().float().cpu())
        advance(len(generators))
    return torch.cat(latents), images


def relative_errors(latents: Tensor, target: Tensor) -> Tensor:
    """``||x - x*|| / ||x*||`` of each row, ``[P]``."""
    return (latents - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)


def check_finite(latents: Tensor, lam: LamLike) -> Tensor:
    """The latents.

    Raises:
        BakeError: names the lam at which they aren't finite.
    """
    if not bool(torch.isfinite(latents).all()):
        raise BakeError(f"at lam = {lam} latents are NaN or infinite; bake a smaller one")
    return latents
