"""What is told of one call of a denoiser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Lam = float | Tensor


@dataclass(frozen=True, kw_only=True)
class DenoiserCall:
    """One call of a denoiser.

    Attributes:
        component: the denoiser's name in the pipeline.
        sample: its input x_t, as the scheduler scaled it; rows (B, ...).
        timestep: as given to the network.
        predictions: output of each model, 0 the reference and 1..K the anchors.
        mixture: what the pipeline goes on with, of the same structure.
        lams: one an anchor, each a float or (B,).
        steps_covered: for how many steps, this one included, the predictions stand (1 unless steps are skipped).
        extrapolated: whether a policy has extrapolated part of the predictions from earlier steps.
    """

    component: str
    sample: Any
    timestep: Any
    predictions: Mapping[int, Any]
    mixture: Any
    lams: list[Lam]
    steps_covered: int = 1
    extrapolated: bool = False


Observer = Callable[[DenoiserCall], None]
