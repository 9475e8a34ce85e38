"""How a denoiser's calls are evaluated: exactly, or with fewer network function evaluations and a measured error.

A policy is a setting; its *session* carries the records of one run of a pipeline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from deradiff.acceleration.cells import BatchedCall, Prediction, mixed, predictions
from deradiff.acceleration.solver import LinearExtrapolator, SolverCoefficients
from deradiff.anchor.ensembles import Interpolated
from deradiff.errors import LamError, RealignError
from deradiff.mixture import coefficients
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
        observed: whether both models' predictions are wanted at every cell.
        guidance: scale of classifier-free guidance where [uncond, cond] are stacked, else None.
    """

    solver: SolverCoefficients | None
    step: int
    level: NoiseLevel | None
    shared: bool
    observed: bool
    guidance: float | None


Session = Callable[[BatchedCall, CallContext], Prediction]

_HALFWAY = 0.5  # lams from which the anchor is the nearer model


class Policy(Protocol):
    """How a denoiser's calls are evaluated."""

    @property
    def needs_solver(self) -> bool:
        """Whether it reads the scheduler's noise levels."""
        ...

    def start(self) -> Session:
        """A fresh session, for one run."""
        ...


@dataclass(frozen=True)
class Exact:
    """Every model that has weight runs at each step.

    In a sweep over lams each cell runs only the models that have weight there, and the first step runs once for all
    lams of an image, whose samples are equal then.
    """

    needs_solver: bool = field(default=False, init=False)

    def start(self) -> Session:
        """Carries nothing."""
        return _exact


def _exact(call: BatchedCall, context: CallContext) -> Prediction:
    if call.inseparable or call.is_small:
        every = range(len(call.row_lams) + 1)
        return Prediction(models=call.run_whole(list(every) if context.observed else active_models(call.row_lams)))
    return call.prediction(models=predictions(call, *active_cells(call, context), shared=context.shared))


def active_models(lams: Sequence[float | Tensor]) -> list[int]:
    """The models that have weight in some row: 0 is the reference, 1..K the anchors.

    Args:
        lams: for each anchor a float, or one a row ``[rows]``.
    """
    weights = enumerate(coefficients(lams))
    return [k for k, weight in weights if (bool((weight != 0).any()) if isinstance(weight, Tensor) else weight != 0)]


def active_cells(call: BatchedCall, context: CallContext) -> tuple[Tensor, Tensor]:
    """The cells ``[I, L]`` that need reference and anchor: where they have weight, or all where they are observed."""
    return (call.lams != 1) | context.observed, (call.lams != 0) | context.observed


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

        def step(call: BatchedCall, context: CallContext) -> Prediction:
            solver, _ = known(context)
            due = (
                len(extrapolator.steps) < 2
                or context.step - extrapolator.steps[0] >= refresh
                or context.step == len(solver) - 1
            )
            return (_refreshed if due else _extrapolated)(call, context, extrapolator)

        return step


@dataclass(frozen=True)
class Weights:
    """One network a step, at weights interpolated between the models: another method, and a strong baseline.

    It is chosen when a pipeline is realigned; no other policy can follow.
    """

    needs_solver: bool = field(default=False, init=False)

    def start(self) -> Session:
        """Carries nothing."""
        return _interpolated


def _interpolated(call: BatchedCall, context: CallContext) -> Prediction:
    assert isinstance(call.ensemble, Interpolated)
    lams = [lam for lam in call.row_lams if not isinstance(lam, Tensor)]
    if len(lams) < len(call.row_lams):
        raise LamError(
            "policy=Weights() mixes the weights of one network, so it takes one lam for all images, got one per image; "
            "use another policy for that"
        )
    call.budget.nfe += call.images
    return Prediction(mixture=call.ensemble.predict(call.inputs, lams))


def _refreshed(call: BatchedCall, context: CallContext, extrapolator: LinearExtrapolator) -> Prediction:
    solver, level = known(context)
    models = predictions(call, *active_cells(call, context), shared=context.shared)
    inside = (call.lams != 0) & (call.lams != 1)
    difference = call.where(inside | context.observed, (models[1] - models[0]).float())
    value, mixture = convert_difference(difference, level, solver.source, solver.form), mixed(call, *models)
    if extrapolator.steps:
        residual = value - extrapolator.extrapolated(solver, context.step)
        missed = extrapolator.error_correction(solver, context.step) * residual
        correction = _from_nearer(call) * convert_difference(missed, level, solver.form, solver.source)
        mixture = mixture + call.where(inside, correction).to(mixture.dtype)
    extrapolator.record(context.step, value)
    return call.prediction(mixture, models)


def _extrapolated(call: BatchedCall, context: CallContext, extrapolator: LinearExtrapolator) -> Prediction:
    solver, level = known(context)
    anchor = call.lams > _HALFWAY
    reference, aligned = predictions(call, ~anchor, anchor)
    value = convert_difference(extrapolator.extrapolated(solver, context.step), level, solver.form, solver.source)
    difference, at_anchor = value.to(reference.dtype), call.over(anchor)
    models = (
        torch.where(at_anchor, aligned - difference, reference),
        torch.where(at_anchor, aligned, reference + difference),
    )
    nearer = torch.where(at_anchor, aligned, reference)
    mixture = nearer + _from_nearer(call).to(nearer.dtype) * difference
    return call.prediction(mixture, models, extrapolated=True)


def _from_nearer(call: BatchedCall) -> Tensor:
    """How many differences the mixture is away from the nearer model's prediction, signed."""
    return call.over(call.lams - (call.lams > _HALFWAY).to(call.lams.dtype))


def known(context: CallContext) -> tuple[SolverCoefficients, NoiseLevel]:
    """The solver's coefficients and the noise level of a context that has them."""
    assert context.solver is not None
    assert context.level is not None
    return context.solver, context.level
