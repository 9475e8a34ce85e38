"""Ways of calling the networks: exactly, or with fewer calls and a measured error.

A policy is a setting; its *line* carries the records of one run of a pipeline.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from deradiff.errors import RealignError
from deradiff.noise import NoiseLevel
from deradiff.predict import convert_difference
from deradiff.reuse.calls import Calls
from deradiff.reuse.clock import Clock
from deradiff.reuse.mixing import mixed, predictions
from deradiff.reuse.trail import Trail


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a call of the denoiser stands.

    Attributes:
        clock: of the scheduler; None where the policy asks for none.
        step: of the clock.
        level: noise level of the call's sample.
        shared: whether the samples are the same at all lams of each image, as they are at the first step.
        watched: whether both models' predictions are wanted at every cell.
        guidance: scale of classifier-free guidance where [uncond, cond] are stacked, else None.
    """

    clock: Clock | None
    step: int
    level: NoiseLevel | None
    shared: bool
    watched: bool
    guidance: float | None


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a line answers.

    Attributes:
        mixture: (branches, I, L, ...), what the pipeline goes on with.
        pair: reference and anchor, of the same shape, known or estimated; None where neither was computed.
        span: for how many steps, this one included, the pair stands.
        guessed: whether part of the pair is extrapolated from earlier steps.
    """

    mixture: Tensor
    pair: tuple[Tensor, Tensor] | None = None
    span: int = 1
    guessed: bool = False


Line = Callable[[Calls, Moment], Predicted]

_HALFWAY = 0.5  # lams from which the anchor is the nearer model


class Policy(Protocol):
    """A way of calling the networks."""

    @property
    def needs_clock(self) -> bool:
        """Whether it reads the scheduler's noise levels."""
        ...

    def line(self) -> Line:
        """A fresh line, for one run."""
        ...


@dataclass(frozen=True)
class Exact:
    """Each cell through the models that have weight there; the first step once for all lams of an image."""

    needs_clock: bool = field(default=False, init=False)

    def line(self) -> Line:
        """Carries nothing."""
        return _exact


def _exact(calls: Calls, moment: Moment) -> Predicted:
    pair = predictions(calls, *weighty(calls, moment), shared=moment.shared)
    return Predicted(mixture=mixed(calls, *pair), pair=pair)


def weighty(calls: Calls, moment: Moment) -> tuple[Tensor, Tensor]:
    """The cells, (I, L), in which reference and anchor are needed: where they have weight, or all if watched."""
    return (calls.lams != 1) | moment.watched, (calls.lams != 0) | moment.watched


@dataclass(frozen=True)
class Reuse:
    """The difference aligned - reference is computed every ``refresh`` steps; at each, only the model nearer in lam.

    In between the difference is extrapolated linearly; what that got wrong is paid back when it is next computed
    (:meth:`Clock.payback`).  lam = 0 and lam = 1 take one call a step and stay exact.

    Raises:
        RealignError: ``refresh`` is no whole number from 1 on.
    """

    refresh: int = 3
    needs_clock: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.refresh, bool) or not isinstance(self.refresh, Integral) or self.refresh < 1:
            raise RealignError(f"Reuse: refresh is a number of steps, 1, 2, ...; got {self.refresh!r}")

    def line(self) -> Line:
        """Carries the last two differences."""
        trail, refresh = Trail(), self.refresh

        def step(calls: Calls, moment: Moment) -> Predicted:
            clock, level = known(moment)
            fresh = len(trail.steps) < 2 or moment.step - trail.steps[0] >= refresh or moment.step == len(clock) - 1
            answer = _refreshed if fresh else _extrapolated
            return answer(calls, moment, trail, clock, level)

        return step


@dataclass(frozen=True)
class Weights:
    """One network a step, at weights interpolated between the models: another method, and a strong baseline.

    It is chosen when a pipeline is realigned; no other policy can follow.
    """


def _refreshed(calls: Calls, moment: Moment, trail: Trail, clock: Clock, level: NoiseLevel) -> Predicted:
    pair = predictions(calls, *weighty(calls, moment), shared=moment.shared)
    inside = (calls.lams != 0) & (calls.lams != 1)
    difference = calls.where(inside | moment.watched, (pair[1] - pair[0]).float())
    own, mixture = convert_difference(difference, level, clock.source, clock.form), mixed(calls, *pair)
    if trail.steps:
        missed = trail.payback(clock, moment.step) * (own - trail.extrapolated(clock, moment.step))
        owed = _from_nearer(calls) * convert_difference(missed, level, clock.form, clock.source)
        mixture = mixture + calls.where(inside, owed).to(mixture.dtype)
    trail.record(moment.step, own)
    return Predicted(mixture=mixture, pair=pair)


def _extrapolated(calls: Calls, moment: Moment, trail: Trail, clock: Clock, level: NoiseLevel) -> Predicted:
    anchor = calls.lams > _HALFWAY
    reference, aligned = predictions(calls, ~anchor, anchor)
    guess = convert_difference(trail.extrapolated(clock, moment.step), level, clock.form, clock.source)
    difference, at_anchor = guess.to(reference.dtype), calls.over(anchor)
    pair = (
        torch.where(at_anchor, aligned - difference, reference),
        torch.where(at_anchor, aligned, reference + difference),
    )
    nearer = torch.where(at_anchor, aligned, reference)
    return Predicted(mixture=nearer + _from_nearer(calls).to(nearer.dtype) * difference, pair=pair, guessed=True)


def _from_nearer(calls: Calls) -> Tensor:
    """How many differences the mixture is away from the nearer model's prediction, signed."""
    return calls.over(calls.lams - (calls.lams > _HALFWAY).to(calls.lams.dtype))


def known(moment: Moment) -> tuple[Clock, NoiseLevel]:
    """The clock and level of a moment that has them."""
    assert moment.clock is not None
    assert moment.level is not None
    return moment.clock, moment.level
