"""Scoring one batch of images, which may happen on another machine than the one that has the run folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deradiff.errors import RewardError, RewardUnavailableError, RunFolderError
from deradiff.reading import decode_image
from deradiff.rewards import Reward, compute_scores
from deradiff.rewards.group_metrics import SIDE, GroupMetric
from deradiff.rewards.preprocess import downsample
from deradiff.runs.cells import image_name
from deradiff.runs.results import Image
from deradiff.sampling import to_pixels


@dataclass(frozen=True)
class Batch:
    """Images that a reward looks at together; of a metric that compares images, one group.

    Attributes:
        images: what the journals say of them.
        contents: of their files.
    """

    images: tuple[Image, ...]
    contents: tuple[bytes, ...]


@dataclass(frozen=True)
class BatchScores:
    """What came of a batch.

    Attributes:
        values: the score of each image; None where there is none.
        errors: why the reward failed, by the image's index.
    """

    values: tuple[float | None, ...]
    errors: Mapping[int, str] = field(default_factory=dict)


BatchScorer = Callable[[Iterator[Batch]], Iterator[tuple[Batch, BatchScores]]]  # batches come back in any order


def score_batch(name: str, reward: Reward, batch: Batch) -> BatchScores:
    """Score the images of a batch together, or one by one where the reward fails on some.

    Args:
        name: of the reward, for error messages.
        reward: which is loaded.
        batch: of images of one size.

    Raises:
        RewardUnavailableError: the reward can score nothing at present.
        RewardError: a metric of groups failed.
        RunFolderError: an image can't be decoded.
    """
    pixels = [_pixels(image, content) for image, content in zip(batch.images, batch.contents, strict=True)]
    prompts = [image.cell.prompt for image in batch.images]
    if isinstance(reward, GroupMetric):
        lams_or_seeds = [getattr(image.cell, reward.varies) for image in batch.images]
        small = torch.cat([downsample(one[None], SIDE) for one in pixels])
        return BatchScores(
            tuple(compute_scores(name, lambda pixels, _: reward.function(pixels, lams_or_seeds), small, prompts))
        )
    try:
        return BatchScores(tuple(compute_scores(name, reward, torch.stack(pixels), prompts)))
    except RewardUnavailableError:
        raise
    except RewardError:
        return _score_one_by_one(name, reward, pixels, prompts)


def _score_one_by_one(name: str, reward: Reward, pixels: list[Tensor], prompts: list[str]) -> BatchScores:
    values, errors = list[float | None](), dict[int, str]()
    for index, (one, prompt) in enumerate(zip(pixels, prompts, strict=True)):
        try:
            values += compute_scores(name, reward, torch.stack([one]), [prompt])
        except RewardUnavailableError:
            raise
        except RewardError as error:
            values.append(None)
            errors[index] = str(error)
    return BatchScores(tuple(values), errors)


def _pixels(image: Image, content: bytes) -> Tensor:
    """Pixels (3, H, W) in [0, 1]."""
    return to_pixels(decode_image(content, f"the image {image_name(image.key)}", RunFolderError))
