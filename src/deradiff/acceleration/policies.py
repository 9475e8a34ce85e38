"""Ways of calling the networks: exactly, or with fewer calls and a measured error.

A policy is a setting; its *session* carries the records of one run of a pipeline.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from deradiff.acceleration.cells import BatchedCall
from deradiff.acceleration.extrapolator import LinearExtrapolator
from deradiff.acceleration.mixing import mixed, predictions
from deradiff.acceleration.solver import SolverCoefficients
from deradiff.errors import RealignError
from deradiff.noise import NoiseLevel
from deradiff.predict import convert_difference


@dataclass(frozen=True, kw_only=True)
class CallContext:
    """Where a call of the denoiser stands.

    Attributes:
        solver: coefficients of the scheduler's steps; None where the policy asks for none.
        step: its index.
        level: noise level of the call's sample.
        shared: whether the samples are the same at all lams of each image, as they are at the first step.
        watched: whether both models' predictions are wanted at every cell.
        guidance: scale of classifier-free guidance where [uncond, cond] are stacked, else None.
    """

    solver: SolverCoefficients | None
    step: int
    level: NoiseLevel | None
    shared: bool
    watched: bool
    guidance: float | None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a session answers.

    Attributes:
        mixture: (branches, I, L, ...), what the pipeline goes on with.
        models: reference and anchor, of the same shape, known or estimated; None where neither was computed.
        steps_covered: for how many steps, this one included, they stand.
        extrapolated: whether part of it is extrapolated from earlier steps.
    """

    mixture: Tensor
    models: tuple[Tensor, Tensor] | None = None
    steps_covered: int = 1
    extrapolated: bool = False


Session = Callable[[BatchedCall, CallContext], Prediction]

_HALFWAY = 0.5  # lams from which the anchor is the nearer model


class Policy(Protocol):
    """A way of calling the networks."""

    @property
    def needs_solver(self) -> bool:
        """Whether it reads the scheduler's noise levels."""
        ...

    def start(self) -> Session:
        """A fresh session, for one run."""
        ...


@dataclass(frozen=True)
class Exact:
    """Each cell through the models that have weight there; the first step once for all lams of an image."""

    needs_solver: bool = field(default=False, init=False)

    def start(self) -> Session:
        """Carries nothing."""
        return _exact


def _exact(calls: BatchedCall, context: CallContext) -> Prediction:
    models = predictions(calls, *active_cells(calls, context), shared=context.shared)
    return Prediction(mixture=mixed(calls, *models), models=models)


def active_cells(calls: BatchedCall, context: CallContext) -> tuple[Tensor, Tensor]:
    """The cells, (I, L), in which reference and anchor are needed: where they have weight, or all if watched."""
    return (calls.lams != 1) | context.watched, (calls.lams != 0) | context.watched


@dataclass(frozen=True)
class Reuse:
    """The difference aligned - reference is computed every ``refresh`` steps; at each, only the model nearer in lam.

    In between the difference is extrapolated linearly; what that got wrong is paid back when it is next computed
    (:meth:`SolverCoefficients.error_correction`).  lam = 0 and lam = 1 take one call a step and stay exact.

    Raises:
        RealignError: ``refresh`` is no whole number from 1 on.
    """

    refresh: int = 3
    needs_solver: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.refresh, bool) or not isinstance(self.refresh, Integral) or self.refresh < 1:
            raise RealignError(f"Reuse: refresh is a number of steps, 1, 2, ...; got {self.refresh!r}")

    def start(self) -> Session:
        """Carries the last two differences."""
        extrapolator, refresh = LinearExtrapolator(), self.refresh

        def step(calls: BatchedCall, context: CallContext) -> Prediction:
            solver, level = known(context)
            fresh = (
                len(extrapolator.steps) < 2
                or context.step - extrapolator.steps[0] >= refresh
                or context.step == len(solver) - 1
            )
            answer = _refreshed if fresh else _extrapolated
            return answer(calls, context, extrapolator, solver, level)

        return step


@dataclass(frozen=True)
class Weights:
    """One network a step, at weights interpolated between the models: another method, and a strong baseline.

    It is chosen when a pipeline is realigned; no other policy can follow.
    """


def _refreshed(
    calls: BatchedCall,
    context: CallContext,
    extrapolator: LinearExtrapolator,
    solver: SolverCoefficients,
    level: NoiseLevel,
) -> Prediction:
    models = predictions(calls, *active_cells(calls, context), shared=context.shared)
    inside = (calls.lams != 0) & (calls.lams != 1)
    difference = calls.where(inside | context.watched, (models[1] - models[0]).float())
    own, mixture = convert_difference(difference, level, solver.source, solver.form), mixed(calls, *models)
    if extrapolator.steps:
        missed = extrapolator.error_correction(solver, context.step) * (
            own - extrapolator.extrapolated(solver, context.step)
        )
        correction = _from_nearer(calls) * convert_difference(missed, level, solver.form, solver.source)
        mixture = mixture + calls.where(inside, correction).to(mixture.dtype)
    extrapolator.record(context.step, own)
    return Prediction(mixture=mixture, models=models)


def _extrapolated(
    calls: BatchedCall,
    context: CallContext,
    extrapolator: LinearExtrapolator,
    solver: SolverCoefficients,
    level: NoiseLevel,
) -> Prediction:
    anchor = calls.lams > _HALFWAY
    reference, aligned = predictions(calls, ~anchor, anchor)
    guess = convert_difference(extrapolator.extrapolated(solver, context.step), level, solver.form, solver.source)
    difference, at_anchor = guess.to(reference.dtype), calls.over(anchor)
    models = (
        torch.where(at_anchor, aligned - difference, reference),
        torch.where(at_anchor, aligned, reference + difference),
    )
    nearer = torch.where(at_anchor, aligned, reference)
    return Prediction(
        mixture=nearer + _from_nearer(calls).to(nearer.dtype) * difference, models=models, extrapolated=True
    )


def _from_nearer(calls: BatchedCall) -> Tensor:
    """How many differences the mixture is away from the nearer model's prediction, signed."""
    return calls.over(calls.lams - (calls.lams > _HALFWAY).to(calls.lams.dtype))


def known(context: CallContext) -> tuple[SolverCoefficients, NoiseLevel]:
    """The solver's coefficients and the noise level of a context that has them."""
    assert context.solver is not None
    assert context.level is not None
    return context.solver, context.level
