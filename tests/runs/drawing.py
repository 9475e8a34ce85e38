"""Drawing with a pipeline by ``call``, and counting what goes through its networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deradiff.runs.models import call
from deradiff.runs.recipe import Recipe

PROMPTS = ["a red circle", "a blue square"]
RECIPE = Recipe(model="m", anchor="a", steps=2, height=32, width=32)


@contextmanager
def counting(module: torch.nn.Module) -> Iterator[list[int]]:
    """The batch sizes that really go through a network."""
    sizes: list[int] = []
    hook = module.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(rows(args, kwargs)), with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()


def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def drawn(pipe: Any, prompts: list[str], guidance: float | None) -> torch.Tensor:
    """Final latents, one row a prompt."""
    found = call(pipe, RECIPE, prompts, generators(len(prompts)), guidance, output_type="latent")
    return torch.stack(found)
