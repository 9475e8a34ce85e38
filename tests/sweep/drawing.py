"""Drawing with a pipeline by ``call``, and counting what goes through its networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deradiff.sweep import Plan
from deradiff.sweep.models import call

PROMPTS = ["a red circle", "a blue square"]
PLAN = Plan.of(model="m", anchor="a", prompts=PROMPTS, seeds=[0], lams=[0], steps=2, height=32, width=32)


@contextmanager
def counting(module: torch.nn.Module) -> Iterator[list[int]]:
    """The batch sizes that really go through a network."""
    sizes: list[int] = []
    hook = module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        yield sizes
    finally:
        hook.remove()


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def drawn(pipe: Any, prompts: list[str], guidance: float | None, images: int = 2) -> torch.Tensor:
    rows = call(pipe, PLAN, prompts, generators(len(prompts) * images), images, guidance, output_type="latent")
    return torch.stack(rows)
