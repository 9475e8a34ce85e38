"""The sweep's own policy: networks are called at some steps and, at these, for some lams; the rest is predicted.

In time, a cell's prediction is extrapolated from its last two records (:class:`LinearExtrapolator`).  Over lam, the
discrepancies that coarse lams find at a step are interpolated to the finer ones (:class:`LamHierarchy`).  What is left
when a cell is run after all is its residual: it sets the interval to the cell's next run, and what it did to the sample
is corrected (:meth:`SolverCoefficients.error_correction`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from deradiff.acceleration.cells import BatchedCall
from deradiff.acceleration.extrapolator import LinearExtrapolator
from deradiff.acceleration.hierarchy import LamHierarchy
from deradiff.acceleration.mixing import mixed, predictions
from deradiff.acceleration.policies import CallContext, Prediction, Session, active_cells, known
from deradiff.acceleration.schedule import computed_steps
from deradiff.acceleration.solver import SolverCoefficients
from deradiff.errors import RealignError
from deradiff.predict import convert

# Measured on the embedded pipeline with its strongest anchor (docs/performance.md).  Deterministic samplers: the mean
# error of final latents falls with the third power of the number of computed steps, about 1 % at 11.
_STEPS, _AT_ERROR, _POWER = 11.5, 0.01, 0.31
_LONGEST_INTERVAL = {False: 2, True: 8}  # computed steps; samplers that draw noise forget errors


@dataclass(frozen=True)
class Adaptive:
    """Networks run at some steps, and at these for the lams that others don't predict well.

    Args:
        tolerance: mean relative error of final latents that is aimed at; measure it (spot checks do), as it depends on
            anchor and prompt.

    Raises:
        RealignError: the tolerance isn't between 0 and 1.
    """

    tolerance: float = 0.01
    needs_solver: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.tolerance, Real) or not 0 < self.tolerance < 1:
            raise RealignError(f"Adaptive: tolerance is a share between 0 and 1, such as 0.01; got {self.tolerance!r}")

    def start(self) -> Session:
        """Carries the records of every cell."""
        return _Session(self.tolerance)

    def steps(self, solver: SolverCoefficients, first: int = 0) -> list[int]:
        """The steps, from ``first`` on, at which networks run: all where the sampler draws noise, which they answer."""
        left = len(solver) - first
        count = left if solver.stochastic else math.ceil(_STEPS * (_AT_ERROR / self.tolerance) ** _POWER)
        return [first + step for step in computed_steps(left, count)]


class _Session:
    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.extrapolator = LinearExtrapolator()

    def __call__(self, calls: BatchedCall, context: CallContext) -> Prediction:
        solver, _ = known(context)
        if not self.extrapolator.steps:
            return self._begin(calls, context, solver)
        guess = self.extrapolator.extrapolated(solver, context.step)
        if context.step not in self.computed:
            return Prediction(mixture=_to_network(guess, calls, context))
        return self._compute(calls, context, solver, guess)

    def _begin(self, calls: BatchedCall, context: CallContext, solver: SolverCoefficients) -> Prediction:
        self.computed = Adaptive(self.tolerance).steps(solver, context.step)
        self.hierarchy = LamHierarchy(calls.lams[0].tolist())
        self.interval = torch.ones_like(
            calls.lams, dtype=torch.long
        )  # computed steps from one run of a cell to the next
        self.countdown = torch.ones_like(self.interval)  # computed steps until the next one
        self.ran = torch.full((2, *calls.lams.shape), context.step)  # each cell's last two steps with a run
        models = predictions(calls, *active_cells(calls, context), shared=context.shared)
        mixture = mixed(calls, *models)
        self.extrapolator.record(context.step, _to_form(mixture, calls, context))
        return Prediction(
            mixture=mixture, models=self._both_models(calls, models, calls.every(), mixture), steps_covered=1
        )

    def _compute(
        self, calls: BatchedCall, context: CallContext, solver: SolverCoefficients, guess: Tensor
    ) -> Prediction:
        now, extrapolator = context.step, self.extrapolator
        cells = self.hierarchy.base | (self.countdown <= 1)
        models = predictions(calls, *(cells & wanted for wanted in active_cells(calls, context)))
        found = calls.where(cells, _to_form(mixed(calls, *models), calls, context) - guess)
        said = self.hierarchy.predicted(found, cells)
        residual = calls.where(cells & ~self.hierarchy.base, found - said)
        value = guess + said + residual
        correction = (
            extrapolator.error_correction(solver, now) * said + calls.over(self._debt(solver, now, cells)) * residual
        )
        # the record before the last was itself predicted for cells that did not run: it shares in the residual
        extrapolator.values[0] = (
            extrapolator.values[0] + calls.over(self._share(solver, now, extrapolator.steps[0], cells)) * residual
        )
        self._schedule(
            solver.sensitivity[now] * len(solver) * _size(residual, context) / _size(value, context), solver, cells
        )
        self.ran = torch.where(cells, torch.stack([torch.full_like(self.ran[0], now), self.ran[0]]), self.ran)
        extrapolator.record(now, value)
        mixture = _to_network(value + correction, calls, context)
        later = [step for step in self.computed if step > now]
        return Prediction(
            mixture=mixture,
            models=self._both_models(calls, models, cells, mixture),
            steps_covered=(later[0] if later else len(solver)) - now,
        )

    def _debt(self, solver: SolverCoefficients, now: int, cells: Tensor) -> Tensor:
        """Correction of each cell's residual over the steps since it last ran, (I, L)."""
        return self._by_record(cells, lambda last, before: solver.error_correction(now, last, before))

    def _share(self, solver: SolverCoefficients, now: int, at: int, cells: Tensor) -> Tensor:
        """How much of its residual now each cell had at a step before, (I, L)."""
        return self._by_record(cells, lambda last, before: solver.shape(at, now, last, before)).clamp(0, 1)

    def _by_record(self, cells: Tensor, function: Callable[[int, int | None], float]) -> Tensor:
        values = torch.zeros(cells.shape)
        last, before = self.ran
        for one in torch.unique(self.ran[:, cells], dim=1).T.tolist():
            values[(last == one[0]) & (before == one[1])] = function(one[0], one[1] if one[1] != one[0] else None)
        return values

    def _schedule(self, residual: Tensor, solver: SolverCoefficients, cells: Tensor) -> None:
        """Run cells less often the smaller their residual, which grows with the square of the interval."""
        allowed = 25 * self.tolerance if solver.stochastic else math.sqrt(_AT_ERROR * self.tolerance)
        ratio = allowed / residual.cpu().clamp(min=1e-9)
        longest = (self.interval + 1).clamp(max=_LONGEST_INTERVAL[solver.stochastic])
        interval = (0.9 * self.interval * ratio.sqrt()).floor().long().clamp(min=1).minimum(longest)
        self.interval = torch.where(cells, interval, self.interval)
        self.countdown = torch.where(cells, interval, self.countdown - 1)

    def _both_models(
        self, calls: BatchedCall, models: tuple[Tensor, Tensor], cells: Tensor, mixture: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both models at all cells: where one didn't run, the difference is interpolated over lam."""
        difference = self.hierarchy.predicted(calls.where(cells, models[1] - models[0]), cells)
        difference = torch.where(calls.over(cells), models[1] - models[0], difference)
        return mixture - calls.weights() * difference, mixture + (1 - calls.weights()) * difference


def _to_form(mixture: Tensor, calls: BatchedCall, context: CallContext) -> Tensor:
    solver, level = known(context)
    return convert(mixture.float(), _noisy(calls, mixture), level, solver.source, solver.form)


def _to_network(value: Tensor, calls: BatchedCall, context: CallContext) -> Tensor:
    solver, level = known(context)
    return convert(value, _noisy(calls, value), level, solver.form, solver.source).to(calls.sample.dtype)


def _noisy(calls: BatchedCall, like: Tensor) -> Tensor:
    """x_t: some denoisers take further channels after it."""
    return calls.sample[:, :, :, : like.shape[3]].float()


def _size(value: Tensor, context: CallContext) -> Tensor:
    """Norm of the guided prediction, (I, L)."""
    if context.guidance is not None:
        value = value[:1] + context.guidance * (value[1:] - value[:1])
    return value.movedim(0, 2).flatten(2).norm(dim=2)
