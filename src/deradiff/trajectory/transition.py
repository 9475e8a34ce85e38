"""One step of a scheduler, from x_t to x_s: its noise levels, and the kernel that it draws from."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deradiff.compat import scheduler_traits
from deradiff.divergence import q_increment
from deradiff.noise import NoiseLevel, is_flow, noise_at, noise_levels
from deradiff.predict import convert, convert_difference


@dataclass(frozen=True, kw_only=True)
class Transition:
    """A step that all rows make together.

    Attributes:
        difference: (B, ...), aligned − reference of the guided models at x_t, float64.
        form: of the prediction whose difference it is.
        lam: (B,), float64.
        previous: noise level of the state visited before; ``level`` itself at the first.
        level: of x_t.
        next: of x_s; sigma may be 0.
        last: whether nothing is predicted at x_s.
    """

    difference: Tensor
    form: str
    lam: Tensor
    previous: NoiseLevel
    level: NoiseLevel
    next: NoiseLevel
    last: bool

    @property
    def eps(self) -> Tensor:
        """Δeps."""
        return convert_difference(self.difference, self.level, self.form, "epsilon")

    @property
    def q(self) -> Tensor:
        """What x_t adds to Q, (B,)."""
        return q_increment(self.eps, self.previous, self.level, self.next, last=self.last)

    def take(self, index: Tensor) -> "Transition":
        """The step with rows in the place of others."""
        return replace(self, difference=self.difference[index], lam=self.lam[index])


def levels_of(scheduler: Any, timestep: Any, previous: NoiseLevel | None) -> tuple[NoiseLevel, NoiseLevel, bool]:
    """The noise levels of x_t and of x_s, and whether that is where the run ends; asked before the scheduler steps.

    Args:
        scheduler: a diffusers scheduler.
        timestep: that its step is given.
        previous: of the state visited before.

    Raises:
        ScheduleError: the schedule can't be read.
    """
    level, levels = noise_at(scheduler, torch.as_tensor(timestep).flatten()[0]), noise_levels(scheduler)
    same = ((levels.log_snr - level.log_snr).abs() < 1e-9).nonzero()[:, 0].tolist()
    here = getattr(scheduler, "step_index", None)
    here = getattr(scheduler, "begin_index", None) if here is None else here
    if here not in same and same:  # it doesn't count its steps
        again = previous is not None and bool((previous.log_snr - level.log_snr).abs() < 1e-9)
        here = same[-1 if again else 0]
    later = levels.log_snr >= level.log_snr - 1e-9  # solvers that call twice a step stay where they are for one
    end = len(later) - 1
    if here is not None and here in same and here < end and later[here + 1]:
        return level, levels[here + 1], here + 1 == end
    further = (levels.log_snr > level.log_snr + 1e-9).nonzero()[:, 0].tolist()
    return (level, levels[further[0]], further[0] == end) if further else (level, level, True)


def draws_posterior(scheduler: Any, eta: float) -> bool:
    """Whether a step draws x_s from q(x_s | x_t, x_0) at the predicted x_0, so that its kernel is known.

    True of Euler-ancestral, DDPM with the posterior's variance, DDIM at eta = 1, and first-order SDE-DPM-Solver.
    """
    config = getattr(scheduler, "config", {})
    if config.get("thresholding") or config.get("clip_sample"):
        return False
    return scheduler_traits(scheduler).draws_posterior(config, eta)


def recover_noise(scheduler: Any, transition: Transition, output: Tensor, x_t: Tensor, x_s: Tensor) -> Tensor | None:
    """The standard normal (B, ...) that was drawn in a step of a scheduler that :func:`draws_posterior`.

    In units of x / alpha the kernel's mean is ``(1 − r) x_0 + r x_t``, its variance ``(1 − r) / SNR_s``, with
    r = SNR_t / SNR_s.

    Args:
        scheduler: which stepped.
        transition: that it made.
        output: (B, ...), the guided mixture that it was given.
        x_t: (B, ...), in the scheduler's own scale.
        x_s: likewise.

    Returns:
        None where x_t is noise alone, or x_s has none.
    """
    level, ahead = transition.level, transition.next
    if level.alpha == 0 or ahead.sigma == 0:
        return None
    x_t, x_s, output = (value.detach().cpu().double() for value in (x_t, x_s, output))
    if not is_flow(scheduler) and float(getattr(scheduler, "init_noise_sigma", 1)) > 1:  # keeps x / alpha itself
        x_t, x_s = x_t * level.alpha, x_s * ahead.alpha
    r = level.snr / ahead.snr
    mean = (1 - r) * convert(output, x_t, level, transition.form, "sample") + r * x_t / level.alpha
    return (x_s / ahead.alpha - mean) / ((1 - r) / ahead.snr).sqrt()
