"""What a beta means: three conventions are in use, whose betas differ by factors of thousands.

A loss sees ``beta * log_ratio`` with ``log_ratio = -multiplier * drift`` and the drift in squared errors *summed* over
the latent (:mod:`deradiff.align.loss`). Conventions differ in the multiplier; what is trained depends on
``beta * multiplier`` alone, so a beta of one convention is converted by the ratio of two multipliers.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from deradiff.errors import AlignError
from deradiff.noise import NoiseLevel, is_flow, prediction_type, training_level
from deradiff.predict import convert_difference


@dataclass(frozen=True)
class Convention:
    """How squared errors become the log-ratio that beta multiplies.

    Attributes:
        reduction: over the elements of a latent.
        factor: of the squared errors.
        timestep_weight: T * omega(t) of Diffusion-DPO's equation 14, one constant.
    """

    reduction: Literal["sum", "mean"]
    factor: float
    timestep_weight: float = 1.0

    def multiplier(self, elements: int) -> float:
        """Of squared errors summed over a latent of so many elements."""
        return self.factor * self.timestep_weight / (elements if self.reduction == "mean" else 1)

    def card(self) -> dict[str, Any]:
        """What an anchor's card says of its beta."""
        return asdict(self)


PUBLISHED = {
    "sdxl-script": Convention("mean", 0.5),  # of Diffusion-DPO's authors, betas 2000 to 5000
    "sd15-script": Convention("mean", 1.0),  # diffusers' research project
}
NAMES = ("kl", *PUBLISHED)


def convention(name: str, scheduler: Any) -> Convention:
    """The convention of a name.

    ``kl``: errors are summed and weighted so that the log-ratio is that of two whole reverse chains, in nats, if the
    error is the same at all t: beta is then in units of the reward, the beta of ``E[reward] - beta KL``.

    Raises:
        AlignError: no convention of that name.
        ScheduleError: the schedule can't be read.
    """
    if name == "kl":
        return Convention("sum", 1.0, kl_weight(scheduler))
    if name not in PUBLISHED:
        raise AlignError(f"no convention of beta is called {name!r}; choose from {', '.join(NAMES)}")
    return PUBLISHED[name]


def convert_beta(beta: float, source: Convention, target: Convention, elements: int) -> float:
    """The beta of another convention that trains the same model, for latents of so many elements."""
    return beta * source.multiplier(elements) / target.multiplier(elements)


def kl_weight(scheduler: Any) -> float:
    """The KL divergence in nats between two reverse chains whose predictions differ by 1 in square at each step.

    The sum over training steps of beta_t / (2 alpha_t (1 - alphabar_t)) for a difference of eps (chains of variances
    beta_t; Ho et al. 2020), with alpha_t the ratio of neighbouring alphabar; of half the fall of log-SNR for flows.
    Differences of other predictions are those of eps times a scale.
    """
    steps = int(scheduler.config.num_train_timesteps)
    levels = training_level(scheduler, torch.arange(1 if is_flow(scheduler) else 0, steps))
    signal = levels.alpha[1:] > 0  # where none is left, as at zero terminal SNR, chains don't differ
    before, here = levels[:-1][signal], levels[1:][signal]
    if is_flow(scheduler):
        weight = (before.log_snr - here.log_snr) / 2
    else:
        alpha = here.alpha.square() / before.alpha.square()
        weight = (1 - alpha) / (2 * alpha * here.sigma.square())
    return float((weight * _of_eps(here, prediction_type(scheduler)).square()).sum())


def _of_eps(level: NoiseLevel, form: str) -> torch.Tensor:
    """The difference of eps that a difference of 1 in another form is."""
    return convert_difference(torch.ones_like(level.alpha), level, form, "epsilon")
