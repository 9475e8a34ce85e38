"""What everything that samples shares: where noise starts, final latents, and images as pixels."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Step = Callable[..., Any]  # of a scheduler


def noise_seed(prompt: str, seed: int) -> int:
    """Where the generator of an image starts: 63 bits of a hash of prompt and seed.

    It starts from both, so that one seed means independent noise for each prompt: prompts stay independent when
    results are averaged over them.
    """
    return int.from_bytes(sha256(f"{seed}\n{prompt}".encode()).digest()[:8], "big") >> 1


@contextmanager
def final_latents(pipe: Any) -> Generator[Callable[[], Tensor]]:
    """Gives a function that returns the scheduler's last output in the block, ``[rows, ...]``: pipelines return images.

    No rows where the pipeline has not called its scheduler.
    """
    last: list[Tensor] = []

    def kept(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = step(*args, **kwargs)
        last[:] = [output[0] if isinstance(output, tuple) else output.prev_sample]
        return output

    with around_step(pipe.scheduler, kept):
        yield lambda: last[0] if last else torch.empty(0)


@contextmanager
def around_step(scheduler: Any, around: Callable[[Step, tuple[Any, ...], dict[str, Any]], Any]) -> Generator[None]:
    """Inside the block ``scheduler.step(...)`` is ``around(step, args, kwargs)``; blocks nest."""
    before, has_own_step = scheduler.step, "step" in vars(scheduler)
    scheduler.step = _Around(scheduler, around)
    try:
        yield
    finally:
        if has_own_step:
            scheduler.step = before
        else:
            del scheduler.step


class _Around:
    """A scheduler's step, gone around; a copy of the scheduler, as some pipelines make, steps plainly."""

    def __init__(self, scheduler: Any, around: Callable[[Step, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        self.scheduler, self.step, self.around = scheduler, scheduler.step, around
        self.__wrapped__ = scheduler.step  # pipelines read its signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.step, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo[id(self.scheduler)]
        return type(copied).step.__get__(copied)


def to_pixels(image: Image.Image) -> Tensor:
    """An image as pixels (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
