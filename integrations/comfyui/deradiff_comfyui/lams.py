"""lam as a user types it, and as it holds for the images of a batch at one noise level.

lam mixes two predictions, ``reference + lam (aligned - reference)``: 0 is the reference, 1 the aligned model, between
them less alignment, above 1 more than was trained.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .errors import RealignError

EXAMPLES = 'one number such as "0.5", or one per image of the batch such as "0, 0.5, 1"'


class PercentToSigma(Protocol):
    """What is used of a ComfyUI model's ``model_sampling``."""

    def percent_to_sigma(self, percent: float) -> float:
        """The noise level at which ``percent`` of the steps (0 to 1) is done."""
        ...


def parse_lams(text: str | float) -> tuple[float, ...]:
    """Lams from a widget: numbers with commas between them, or a number from a linked node.

    Raises:
        RealignError: an entry is missing, not a number or not finite.
    """
    return tuple(_parse_lam(entry.strip(), text) for entry in str(text).split(","))


def _parse_lam(entry: str, text: str | float) -> float:
    try:
        lam = float(entry)
    except ValueError:
        raise RealignError(f'lam: "{entry}" in "{text}" is not a number; give {EXAMPLES}.') from None
    if not math.isfinite(lam):
        raise RealignError(f'lam must be finite, but "{text}" holds {entry}; give {EXAMPLES}.')
    return lam


@dataclass(frozen=True)
class LamSchedule:
    """The lams of one aligned model, and the part of sampling in which they hold; the reference samples the rest.

    Attributes:
        lams: one for all images, or one per image of the batch.
        start_percent: where realignment starts, as a share of the steps from 0 to 1.
        end_percent: where it ends.

    Raises:
        RealignError: the start doesn't lie before the end.
    """

    lams: tuple[float, ...]
    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self) -> None:
        if self.start_percent >= self.end_percent:
            raise RealignError(
                f"start_percent is {self.start_percent:g} and end_percent {self.end_percent:g}; "
                "give a start that is smaller than the end."
            )

    def at(self, sigmas: Tensor, model_sampling: PercentToSigma) -> Tensor:
        """The lam of each image at its noise level; 0 outside of the percent range.

        Args:
            sigmas: noise levels ``[images]``.
            model_sampling: of the reference, as it is while sampling (nodes may patch it).

        Returns:
            ``[images]``, float64, on the CPU.

        Raises:
            RealignError: there are several lams, but not one per image.
        """
        images = len(sigmas)
        if len(self.lams) not in (1, images):
            raise RealignError(
                f"lam holds {len(self.lams)} numbers and the batch {images} images; give one number, or one per image."
            )
        lams = torch.tensor(self.lams, dtype=torch.float64).expand(images)
        sigmas = sigmas.to("cpu", torch.float64)
        first, last = (float(model_sampling.percent_to_sigma(p)) for p in (self.start_percent, self.end_percent))
        return torch.where((sigmas <= first) & (sigmas >= last), lams, 0.0)
