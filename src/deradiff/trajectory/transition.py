"""One step of a scheduler, from x_t to x_s: its noise levels, and the kernel from which it draws x_s."""

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
    """One step of all rows of a batch.

    Attributes:
        difference: aligned − reference of the guided models at x_t, float64 ``[batch, ...]``.
        form: prediction form of the difference.
        lam: float64 ``[batch]``.
        previous: noise level of the previous state; ``level`` at the first step.
        level: noise level of x_t.
        next: noise level of x_s; its sigma may be 0.
        last: whether no prediction is made at x_s.
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
        """Δeps, ``[batch, ...]``."""
        return convert_difference(self.difference, self.level, self.form, "epsilon")

    @property
    def q(self) -> Tensor:
        """The contribution of x_t to Q, ``[batch]``."""
        return q_increment(self.eps, self.previous, self.level, self.next, last=self.last)

    def select(self, index: Tensor) -> "Transition":
        """The same step with rows replaced by their parents, ``[batch]``."""
        return replace(self, difference=self.difference[index], lam=self.lam[index])


def step_levels(scheduler: Any, timestep: Any, previous: NoiseLevel | None) -> tuple[NoiseLevel, NoiseLevel, bool]:
    """The noise levels of x_t and x_s, and whether the run ends at x_s; to be called before the scheduler steps.

    Args:
        scheduler: a diffusers scheduler.
        timestep: the timestep argument of its step.
        previous: noise level of the previous state.

    Raises:
        ScheduleError: the schedule can't be read.
    """
    level, levels = noise_at(scheduler, torch.as_tensor(timestep).flatten()[0]), noise_levels(scheduler)
    same = ((levels.log_snr - level.log_snr).abs() < 1e-9).nonzero()[:, 0].tolist()
    current = getattr(scheduler, "step_index", None)
    current = getattr(scheduler, "begin_index", None) if current is None else current
    if current not in same and same:  # the scheduler doesn't count its steps
        repeats = previous is not None and bool((previous.log_snr - level.log_snr).abs() < 1e-9)
        current = same[-1 if repeats else 0]
    later = levels.log_snr >= level.log_snr - 1e-9  # solvers that call twice a step repeat a level
    end = len(later) - 1
    if current is not None and current in same and current < end and later[current + 1]:
        return level, levels[current + 1], current + 1 == end
    further = (levels.log_snr > level.log_snr + 1e-9).nonzero()[:, 0].tolist()
    return (level, levels[further[0]], further[0] == end) if further else (level, level, True)


def draws_posterior(scheduler: Any, eta: float) -> bool:
    """Whether a step draws x_s from the posterior q(x_s | x_t, x_0) at the predicted x_0.

    The kernel is then known. True of Euler-ancestral, DDPM with the posterior's variance, DDIM at eta = 1, and
    first-order SDE-DPM-Solver.
    """
    config = getattr(scheduler, "config", {})
    if config.get("thresholding") or config.get("clip_sample"):
        return False
    return scheduler_traits(scheduler).draws_posterior(config, eta)


def recover_noise(scheduler: Any, transition: Transition, output: Tensor, x_t: Tensor, x_s: Tensor) -> Tensor | None:
    """The standard normal noise that a step drew, ``[batch, ...]``; for schedulers that :func:`draws_posterior`.

    In units of x / alpha, the kernel has mean ``(1 − r) x_0 + r x_t`` and variance ``(1 − r) / SNR_s``, with
    r = SNR_t / SNR_s.

    Args:
        scheduler: a diffusers scheduler.
        transition: the step it made.
        output: the guided mixture that the step received, ``[batch, ...]``.
        x_t: ``[batch, ...]``, in the scheduler's own scale.
        x_s: likewise.

    Returns:
        None if x_t is pure noise or x_s has none.
    """
    level, following = transition.level, transition.next
    if level.alpha == 0 or following.sigma == 0:
        return None
    x_t, x_s, output = (value.detach().cpu().double() for value in (x_t, x_s, output))
    if not is_flow(scheduler) and float(getattr(scheduler, "init_noise_sigma", 1)) > 1:  # its sample is x / alpha
        x_t, x_s = x_t * level.alpha, x_s * following.alpha
    r = level.snr / following.snr
    mean = (1 - r) * convert(output, x_t, level, transition.form, "sample") + r * x_t / level.alpha
    return (x_s / following.alpha - mean) / ((1 - r) / following.snr).sqrt()
