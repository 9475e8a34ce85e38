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

from deradiff.acceleration.cells import BatchedCall, Prediction, mixed, predictions
from deradiff.acceleration.hierarchy import LamHierarchy
from deradiff.acceleration.policies import CallContext, Session, active_cells, known
from deradiff.acceleration.solver import LinearExtrapolator, SolverCoefficients
from deradiff.errors import RealignError
from deradiff.predict import convert

# Measured on the embedded pipeline with its strongest anchor (docs/performance.md).  Deterministic samplers: the mean
# error of final latents falls with the third power of the number of computed steps, about 1% at 11.
_STEPS, _AT_ERROR, _POWER = 11.5, 0.01, 0.31
# Where extrapolation errs most, in shares of the steps (deterministic samplers on the embedded pipeline): at the noisy
# end images decide what to become, at the clean end log-SNR runs away.
_NOISY, _NOISY_WIDTH = 2.0, 0.1
_CLEAN, _CLEAN_WIDTH = 3.0, 0.06
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
            raise RealignError(
                f"Adaptive(tolerance={self.tolerance!r}): the target error is a share between 0 and 1, such as 0.01"
            )

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

    def __call__(self, call: BatchedCall, context: CallContext) -> Prediction:
        solver, _ = known(context)
        if not self.extrapolator.steps:
            return self._begin(call, context, solver)
        guess = self.extrapolator.extrapolated(solver, context.step)
        if context.step not in self.computed:
            return call.prediction(_to_network(guess, call, context))
        return self._compute(call, context, solver, guess)

    def _begin(self, call: BatchedCall, context: CallContext, solver: SolverCoefficients) -> Prediction:
        self.computed = Adaptive(self.tolerance).steps(solver, context.step)
        self.hierarchy = LamHierarchy(call.lams[0].tolist())
        self.interval = torch.ones_like(call.lams, dtype=torch.long)  # computed steps between runs of a cell
        self.countdown = torch.ones_like(self.interval)  # computed steps until the next one
        self.ran = torch.full((2, *call.lams.shape), context.step)  # each cell's last two steps with a run
        models = predictions(call, *active_cells(call, context), shared=context.shared)
        mixture = mixed(call, *models)
        self.extrapolator.record(context.step, _to_form(mixture, call, context))
        return call.prediction(mixture, self._both_models(call, models, call.every_cell(), mixture))

    def _compute(
        self, call: BatchedCall, context: CallContext, solver: SolverCoefficients, guess: Tensor
    ) -> Prediction:
        now, extrapolator = context.step, self.extrapolator
        cells = self.hierarchy.base | (self.countdown <= 1)
        models = predictions(call, *(cells & active for active in active_cells(call, context)))
        discrepancy = call.where(cells, _to_form(mixed(call, *models), call, context) - guess)
        interpolated = self.hierarchy.predicted(discrepancy, cells)
        residual = call.where(cells & ~self.hierarchy.base, discrepancy - interpolated)
        value = guess + interpolated + residual
        correction = (
            extrapolator.error_correction(solver, now) * interpolated
            + call.over(self._correction(solver, now, cells)) * residual
        )
        # the record before the last was itself predicted for cells that did not run: it shares in the residual
        extrapolator.values[0] = (
            extrapolator.values[0] + call.over(self._share(solver, now, extrapolator.steps[0], cells)) * residual
        )
        self._schedule(
            solver.sensitivity[now] * len(solver) * _size(residual, context) / _size(value, context), solver, cells
        )
        self.ran = torch.where(cells, torch.stack([torch.full_like(self.ran[0], now), self.ran[0]]), self.ran)
        extrapolator.record(now, value)
        mixture = _to_network(value + correction, call, context)
        later = [step for step in self.computed if step > now]
        return call.prediction(
            mixture,
            self._both_models(call, models, cells, mixture),
            steps_covered=(later[0] if later else len(solver)) - now,
        )

    def _correction(self, solver: SolverCoefficients, now: int, cells: Tensor) -> Tensor:
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
        self, call: BatchedCall, models: tuple[Tensor, Tensor], cells: Tensor, mixture: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both models at all cells: where one didn't run, the difference is interpolated over lam."""
        difference = self.hierarchy.predicted(call.where(cells, models[1] - models[0]), cells)
        difference = torch.where(call.over(cells), models[1] - models[0], difference)
        return mixture - call.weights() * difference, mixture + (1 - call.weights()) * difference


def computed_steps(steps: int, count: int) -> list[int]:
    """``count`` of ``steps`` steps: the first two, the last, and others closer together at either end.

    Args:
        steps: N.
        count: how many call the networks, at least 3.

    Returns:
        Ascending indices; all of them where ``count`` is ``steps`` or more.
    """
    if count >= steps or steps <= 3:
        return list(range(steps))
    density = [
        1
        + _NOISY * math.exp(-step / (_NOISY_WIDTH * steps))
        + _CLEAN * math.exp(-(steps - 1 - step) / (_CLEAN_WIDTH * steps))
        for step in range(steps)
    ]
    total = sum(density[2:])
    chosen, passed = [0, 1], 0.0
    for step in range(2, steps):
        passed += density[step]
        due = passed / total >= (len(chosen) - 1) / (count - 2) - 1e-9
        if due or steps - step == count - len(chosen):
            chosen.append(step)
    return chosen


def _to_form(mixture: Tensor, call: BatchedCall, context: CallContext) -> Tensor:
    solver, level = known(context)
    return convert(mixture.float(), _noisy(call, mixture), level, solver.source, solver.form)


def _to_network(value: Tensor, call: BatchedCall, context: CallContext) -> Tensor:
    solver, level = known(context)
    return convert(value, _noisy(call, value), level, solver.form, solver.source).to(call.sample.dtype)


def _noisy(call: BatchedCall, like: Tensor) -> Tensor:
    """x_t: some denoisers take further channels after it."""
    return call.sample[:, :, :, : like.shape[3]].float()


def _size(value: Tensor, context: CallContext) -> Tensor:
    """Norm of the guided prediction, (I, L)."""
    if context.guidance is not None:
        value = value[:1] + context.guidance * (value[1:] - value[:1])
    return value.movedim(0, 2).flatten(2).norm(dim=2)
