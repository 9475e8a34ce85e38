"""The conventions of beta: three are in use, and their betas differ by factors of thousands.

A loss depends on ``beta * log_ratio``, where ``log_ratio = -multiplier * implicit_margin`` and the implicit margin is
made of squared errors *summed* over the latent (:mod:`deradiff.align.loss`). Conventions differ in the multiplier. The
trained model depends on ``beta * multiplier`` alone, so the ratio of two multipliers converts a beta.
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
        factor: multiplies the squared errors.
        timestep_weight: T * omega(t) of Diffusion-DPO's equation 14 (arXiv 2311.12908), a constant.
    """

    reduction: Literal["sum", "mean"]
    factor: float
    timestep_weight: float = 1.0

    def multiplier(self, elements: int) -> float:
        """The multiplier of squared errors summed over a latent with this number of elements."""
        return self.factor * self.timestep_weight / (elements if self.reduction == "mean" else 1)

    def card(self) -> dict[str, Any]:
        """The convention as an anchor's card stores it."""
        return asdict(self)


PUBLISHED = {
    "sdxl-script": Convention("mean", 0.5),  # Diffusion-DPO's authors, betas of 2000 to 5000
    "sd15-script": Convention("mean", 1.0),  # diffusers' research project
}
NAMES = ("kl", *PUBLISHED)


def get_convention(name: str, scheduler: Any) -> Convention:
    """The convention of this name.

    ``kl`` sums the errors and weights them so that the log-ratio is that of two whole reverse chains, in nats, if the
    error is equal at all t. Beta is then in units of the reward: the beta of ``E[reward] - beta KL``.

    Raises:
        AlignError: an unknown name.
        ScheduleError: the schedule can't be read.
    """
    if name == "kl":
        return Convention("sum", 1.0, chain_kl_weight(scheduler))
    if name not in PUBLISHED:
        raise AlignError(f"no convention of beta is called {name!r}; choose from {', '.join(NAMES)}")
    return PUBLISHED[name]


def convert_beta(beta: float, source: Convention, target: Convention, elements: int) -> float:
    """The beta that trains the same model under another convention.

    Args:
        beta: KL strength in the convention ``source``.
        source: the convention of ``beta``.
        target: the convention to convert to.
        elements: number of elements of a latent.
    """
    return beta * source.multiplier(elements) / target.multiplier(elements)


def chain_kl_weight(scheduler: Any) -> float:
    """The KL in nats between two reverse chains whose predictions have a squared difference of 1 at each step.

    For eps-predictions it is the sum over training steps of beta_t / (2 alpha_t (1 - alphabar_t)), where chains have
    variance beta_t and alpha_t is the ratio of neighbouring alphabar (Ho et al. 2020, arXiv 2006.11239). For flows it
    is half the decrease of log-SNR. Differences of other predictions are converted to differences of eps.
    """
    steps = int(scheduler.config.num_train_timesteps)
    levels = training_level(scheduler, torch.arange(1 if is_flow(scheduler) else 0, steps))
    signal = levels.alpha[1:] > 0  # at zero terminal SNR the chains don't differ
    previous, current = levels[:-1][signal], levels[1:][signal]
    if is_flow(scheduler):
        weight = (previous.log_snr - current.log_snr) / 2
    else:
        alpha = current.alpha.square() / previous.alpha.square()
        weight = (1 - alpha) / (2 * alpha * current.sigma.square())
    return float((weight * _eps_scale(current, prediction_type(scheduler)).square()).sum())


def _eps_scale(level: NoiseLevel, form: str) -> torch.Tensor:
    """The difference of eps that corresponds to a difference of 1 in another form."""
    return convert_difference(torch.ones_like(level.alpha), level, form, "epsilon")
