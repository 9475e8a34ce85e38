"""What a bake loses: its images against those of the realigned pipeline, from the same noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deradiff.analysis.statistics import Interval, mean_interval
from deradiff.bake.sampling import check_finite, relative_errors, sample
from deradiff.realignment import realign
from deradiff.realignment.lams import LamLike
from deradiff.rewards import Reward, compute_scores
from deradiff.runs.recipe import Recipe
from deradiff.sampling import noise_seed, to_pixels

POOR = 0.25  # share of what realignment changes, from which on a bake is called poor


@dataclass(frozen=True, kw_only=True, eq=False)
class BakeQuality:
    """How near a bake comes to the realigned pipeline, over P prompts with one image each.

    Attributes:
        prompts: P texts.
        errors: ``||x - x*|| / ||x*||`` of final latents ``[P]``; x* is the realigned pipeline's, from the same noise.
        changes: likewise of the reference, which is what realignment changes, ``[P]``.
        rewards: mean difference of each reward, baked minus realigned, with its 95% interval.
        realigned: images.
        baked: images.
        remarks: on how the bake was made, in words.
    """

    prompts: tuple[str, ...]
    errors: Tensor
    changes: Tensor
    rewards: Mapping[str, Interval]
    realigned: tuple[Image.Image, ...]
    baked: tuple[Image.Image, ...]
    remarks: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Mean relative error of final latents."""
        return float(self.errors.mean())

    @property
    def share(self) -> float:
        """The error as a share of what realignment changes; infinite where that is nothing."""
        change = float(self.changes.mean())
        return self.error / change if change else float("inf") if self.error else 0.0

    @property
    def is_poor(self) -> bool:
        """Whether the bake misses much of what realignment changes, or shifts a reward significantly."""
        shifted = any(interval.low > 0 or interval.high < 0 for interval in self.rewards.values())
        return self.share > POOR or shifted

    def sentences(self) -> list[str]:
        """The result in words."""
        count = f"{len(self.prompts)} prompt{'s' * (len(self.prompts) != 1)}"
        lines = [
            f"error of final latents against the realigned pipeline {self.error:.1%}, which is {self.share:.1%} of "
            f"what realignment changes (mean of {count})",
        ]
        lines += [
            f"{name}: {interval.mean:+.3g} against the realigned pipeline (95% interval {interval.low:+.3g} to "
            f"{interval.high:+.3g})"
            for name, interval in self.rewards.items()
        ]
        if self.is_poor:
            lines.append(
                "This bake is poor: distil it, distil it longer or at a larger rank, or use the realigned pipeline"
            )
        return lines


def measure(
    pipe: Any,
    aligned: Any,
    lam: LamLike,
    baked: Any,
    prompts: Sequence[str],
    recipe: Recipe,
    *,
    component: str | None = None,
    guidance: float | None = None,
    baked_guidance: float | None = None,
    rewards: Mapping[str, Reward] | None = None,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> BakeQuality:
    """Sample each prompt from the same noise by the reference, the realigned pipeline and the bake.

    Args:
        pipe: the reference pipeline.
        aligned: the anchor or several.
        lam: at which they were baked.
        baked: the bake: a folder, file or network, as :func:`deradiff.realign` takes it.
        prompts: one image each.
        recipe: gives steps, size and batch size.
        component: the denoiser, where it can't be inferred.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        baked_guidance: of the bake, where guidance is folded into it; None takes ``guidance``.
        rewards: by name, to compare.
        seed: of the noise.
        advance: receives the number of images sampled since its last call.

    Raises:
        BakeError: latents that aren't finite.
        AnchorError, RealignError, RewardError: as :func:`deradiff.realign` and the rewards.
    """

    seeds = [noise_seed(text, seed) for text in prompts]

    def images_at(scale: float | None) -> tuple[Tensor, list[Image.Image]]:
        latents, images = sample(pipe, recipe, prompts, seeds, scale, advance=advance)
        return check_finite(latents, lam), images

    reference, _ = images_at(guidance)
    with realign(pipe, aligned, lam, component=component):
        target, realigned = images_at(guidance)
    with realign(pipe, baked, 1.0, component=component):
        latents, images = images_at(guidance if baked_guidance is None else baked_guidance)
    pixels = [torch.stack([to_pixels(image) for image in kind]) for kind in (images, realigned)]
    differences = {
        name: _difference(name, reward, pixels[0], pixels[1], prompts) for name, reward in (rewards or {}).items()
    }
    return BakeQuality(
        prompts=tuple(prompts),
        errors=relative_errors(latents, target),
        changes=relative_errors(reference, target),
        rewards=differences,
        realigned=tuple(realigned),
        baked=tuple(images),
    )


def _difference(name: str, reward: Reward, baked: Tensor, realigned: Tensor, prompts: Sequence[str]) -> Interval:
    scores = [np.array(compute_scores(name, reward, pixels, list(prompts))) for pixels in (baked, realigned)]
    return mean_interval((scores[0] - scores[1])[:, None])
