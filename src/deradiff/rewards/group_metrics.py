"""Metrics of an image within a group of its run: diversity over seeds, distance to the reference over lams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.card import Card

SIDE = 64  # px to which images are downsampled before they are compared


@dataclass(frozen=True, kw_only=True)
class GroupMetric:
    """A metric of groups of images that differ in one value only: all seeds of a prompt at one lam, or all lams of one
    prompt and seed.

    Attributes:
        card: its description.
        varies: the value in which the images of a group differ.
        function: maps the pixels ``[group, 3, height, width]``, the longer side at most `SIDE`, and the ascending
            values ``[group]`` to metrics ``[group]``.
        least: minimum size of a group.
        from_reference: whether a group must include lam = 0.
    """

    card: Card
    varies: Literal["seed", "lam"]
    function: Callable[[Tensor, Sequence[float]], Tensor]
    least: int = 1
    from_reference: bool = False

    def unsupported_reason(self, values: Sequence[float]) -> str | None:
        """Why a group of these seeds or lams can't be measured; None if it can."""
        if len(values) < self.least:
            return (
                f"needs at least {self.least} {self.varies}s of each prompt, and the run has {len(values)}; sweep with "
                f"more --{self.varies}s"
            )
        if self.from_reference and 0 not in values:
            lams = ", ".join(f"{value:g}" for value in values)
            return f"needs lam = 0, and the run has {lams}; add 0 to --lams"
        return None

    def check(self, values: Sequence[float]) -> None:
        """Check a group of these seeds or lams.

        Raises:
            RewardError: there are too few values, or lam = 0 is missing.
        """
        if reason := self.unsupported_reason(values):
            raise RewardError(f"{self.card.name} {reason}")

    def __call__(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Unsupported: the metric is undefined for a single image.

        Raises:
            RewardError: always.
        """
        raise RewardError(
            f"{self.card.name} compares an image with others of its run; make a run with deradiff sweep and score that"
        )


def _diversity(pixels: Tensor, seeds: Sequence[float]) -> Tensor:
    flat = pixels.flatten(1)
    # from differences: by products, equal images would have a distance above 0
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / flat.shape[-1] ** 0.5
    return distances.sum(-1) / (len(seeds) - 1)


def _reference_distance(pixels: Tensor, lams: Sequence[float]) -> Tensor:
    return (pixels - pixels[lams.index(0)]).square().mean((1, 2, 3)).sqrt()


diversity = GroupMetric(
    card=Card(
        name="diversity",
        measures="how much the seeds of a prompt differ at one lam: mean root mean square pixel distance to the others",
        range=f"0 (all the same) to 1, of pictures pooled to {SIDE} px",
        model="none",
        licence="none",
        citation="none",
    ),
    varies="seed",
    function=_diversity,
    least=2,
)
reference_distance = GroupMetric(
    card=Card(
        name="reference_distance",
        measures="how far the picture moved: root mean square pixel distance to the same prompt and seed at lam = 0",
        range=f"0 (not at all) to 1, of pictures pooled to {SIDE} px",
        model="none",
        licence="none",
        citation="none",
        direction="none",
    ),
    varies="lam",
    function=_reference_distance,
    from_reference=True,
)
