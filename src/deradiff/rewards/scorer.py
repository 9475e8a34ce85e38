"""Scorers: rewards by published models, whose weights are read at the first call."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from deradiff.errors import RewardError, RewardUnavailableError
from deradiff.rewards.card import Card
from deradiff.rewards.weights import locate_files

Dtype = Literal["float32", "float16", "bfloat16"]


class Scorer(ABC):
    """A reward by a published model.

    The constructor locates its files, so that a missing file raises before hours of sampling. The first call reads
    them, so that a reward that is only looked up takes no memory.

    Args:
        source: a local folder with the published files, or the file of weights beside the others; default: the hub.
        device: of the network.
        dtype: of the network; embeddings are compared in float32.
        batch_size: number of images in one forward pass.

    Raises:
        RewardError: a file is missing.
    """

    card: ClassVar[Card]
    published: ClassVar[Mapping[str, str]]  # file -> hub repository, the weights first

    def __init__(
        self,
        *,
        source: str | Path | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise RewardError(f"batch_size is {batch_size}; expected at least 1")
        self.source, self.files = source, locate_files(self.published, source)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.batch_size = batch_size
        self._loaded = False

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images.

        Args:
            images: pixels ``[batch, 3, height, width]`` in [0, 1].
            prompts: one for each image.

        Returns:
            Float32 ``[batch]`` on the CPU.

        Raises:
            RewardError: the weights can't be read or don't fit, or the counts differ.
        """
        self.prepare()
        return score_in_batches(self.score_batch, images, prompts, self.batch_size)

    def prepare(self) -> None:
        """Read the weights, unless they are read; the first call does so too.

        Raises:
            RewardUnavailableError: they can't be read or don't fit.
        """
        if self._loaded:
            return
        try:
            self.load()
        except RewardError as error:
            raise RewardUnavailableError(str(error)) from error
        self._loaded = True

    def check_prompt(self, prompt: str) -> None:  # noqa: B027  # most models score any prompt
        """Check that a prompt can be scored, which is asked before images are sampled; by default any can.

        Raises:
            RewardError: it can't.
        """

    @property
    def weights(self) -> Path:
        """The file of weights."""
        return self.files[next(iter(self.published))]

    @abstractmethod
    def load(self) -> None:
        """Read the weights."""

    @abstractmethod
    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch of at most `batch_size` images; arguments as for a call."""


def score_in_batches(
    score: Callable[[Tensor, Sequence[str]], Tensor], images: Tensor, prompts: Sequence[str], size: int
) -> Tensor:
    """Scores, float32 ``[batch]`` on the CPU, computed ``size`` images at a time.

    Raises:
        RewardError: images of another shape, or another number of prompts.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(prompts):
        raise RewardError(
            f"got images of shape {tuple(images.shape)} and {len(prompts)} prompts; expected (N, 3, H, W) and N"
        )
    starts = range(0, len(prompts), size)
    parts = [score(images[at : at + size], prompts[at : at + size]).float().cpu() for at in starts]
    return torch.cat(parts) if parts else torch.empty(0)
