"""Metrics of an image among the other images of its run: how diverse seeds stay, how far a picture moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.card import Card

SIDE = 64  # px that pictures are pooled to before they are compared


@dataclass(frozen=True, kw_only=True)
class Relational:
    """A metric of whole prompts: every seed of a prompt at every lam is looked at together.

    Attributes:
        card: what it measures.
        function: from pixels (P, S, L, 3, h, w), the longer side at most `SIDE`, and the place of lam = 0 among the L
            (None where there is none) to values (P, S, L).
        least_seeds: of a prompt.
        from_reference: whether lam = 0 is needed.
    """

    card: Card
    function: Callable[[Tensor, int | None], Tensor]
    least_seeds: int = 1
    from_reference: bool = False

    def among(self, seeds: int, lams: Sequence[float]) -> Callable[[Tensor, Sequence[str]], Tensor]:
        """As a reward on the pixels (P * S * L, 3, h, w) of whole prompts, in the order of prompt, seed, lam.

        Raises:
            RewardError: the run has too few seeds, or no lam = 0.
        """
        if seeds < self.least_seeds:
            raise RewardError(
                f"{self.card.name} needs at least {self.least_seeds} seeds of each prompt, and the run has {seeds}; "
                "sweep with more --seeds"
            )
        zero = lams.index(0) if 0 in lams else None
        if self.from_reference and zero is None:
            given = ", ".join(f"{lam:g}" for lam in lams)
            raise RewardError(f"{self.card.name} needs lam = 0, and the run has {given}; add 0 to --lams")
        return lambda pixels, prompts: self.function(pixels.unflatten(0, (-1, seeds, len(lams))), zero).flatten()

    def __call__(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Refuses: an image by itself has no such value.

        Raises:
            RewardError: always.
        """
        raise RewardError(
            f"{self.card.name} compares an image with others of its run; make a run with deradiff sweep and score that"
        )


def _diversity(pixels: Tensor, zero: int | None) -> Tensor:
    flat = pixels.flatten(3).transpose(1, 2)  # P, L, S, values
    # by differences: through products, images that are the same would come out apart
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / flat.shape[-1] ** 0.5
    return (distances.sum(-1) / (flat.shape[2] - 1)).transpose(1, 2)


def _reference_distance(pixels: Tensor, zero: int | None) -> Tensor:
    return (pixels - pixels[:, :, [zero]]).square().mean((3, 4, 5)).sqrt()


diversity = Relational(
    card=Card(
        name="diversity",
        measures="how much the seeds of a prompt differ at one lam: mean root mean square pixel distance to the others",
        range=f"0 (all the same) to 1, of pictures pooled to {SIDE} px",
        model="none",
        licence="none",
        citation="none",
    ),
    function=_diversity,
    least_seeds=2,
)
reference_distance = Relational(
    card=Card(
        name="reference_distance",
        measures="how far the picture moved: root mean square pixel distance to the same prompt and seed at lam = 0",
        range=f"0 (not at all) to 1, of pictures pooled to {SIDE} px",
        model="none",
        licence="none",
        citation="none",
        direction="none",
    ),
    function=_reference_distance,
    from_reference=True,
)
