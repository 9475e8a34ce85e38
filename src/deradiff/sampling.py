"""What everything that samples shares: where noise starts, final latents, and images as pixels."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def noise_seed(prompt: str, seed: int) -> int:
    """Where the generator of an image starts: 63 bits of a hash of prompt and seed.

    It starts from both, so that one seed means independent noise for each prompt: prompts stay independent when
    results are averaged over them.
    """
    return int.from_bytes(sha256(f"{seed}\n{prompt}".encode()).digest()[:8], "big") >> 1


@contextmanager
def final_latents(pipe: Any) -> Iterator[Callable[[], Tensor]]:
    """Gives what tells the scheduler's last output in the block, (rows, ...); a pipeline that decodes doesn't tell."""
    scheduler, last = pipe.scheduler, []
    step = scheduler.step

    @functools.wraps(step)  # pipelines read its signature
    def kept(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        last[:] = [output[0] if isinstance(output, tuple) else output.prev_sample]
        return output

    scheduler.step = kept
    try:
        yield lambda: last[0]
    finally:
        del scheduler.step


def to_pixels(image: Image.Image) -> Tensor:
    """An image as pixels (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
