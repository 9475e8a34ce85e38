"""The sweep's own policy: networks are called at some steps and, at these, for some lams; the rest is predicted.

In time, a cell's prediction is extrapolated from its last two records (:class:`Trail`).  Over lam, the discrepancies
that coarse lams find at a step are interpolated to the finer ones (:class:`Ladder`).  What is left when a cell is run
after all is its surprise: it sets how long the cell may sleep, and is paid back (:meth:`Clock.payback`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from deradiff.errors import RealignError
from deradiff.predict import convert
from deradiff.reuse.calls import Calls
from deradiff.reuse.clock import Clock
from deradiff.reuse.ladder import Ladder
from deradiff.reuse.mixing import mixed, predictions
from deradiff.reuse.policy import Line, Moment, Predicted, known, weighty
from deradiff.reuse.schedule import computed_steps
from deradiff.reuse.trail import Trail

# Measured on the embedded pipeline with its strongest anchor (docs/performance.md).  Deterministic samplers: the mean
# error of final latents falls with the third power of the number of computed steps, about 1 % at 11.
_STEPS, _AT_ERROR, _POWER = 11.5, 0.01, 0.31
_LONGEST_SLEEP = {False: 2, True: 8}  # computed steps; samplers that draw noise forget errors


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
    needs_clock: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.tolerance, Real) or not 0 < self.tolerance < 1:
            raise RealignError(f"Adaptive: tolerance is a share between 0 and 1, such as 0.01; got {self.tolerance!r}")

    def line(self) -> Line:
        """Carries the records of every cell."""
        return _Line(self.tolerance)

    def steps(self, clock: Clock, first: int = 0) -> list[int]:
        """The steps, from ``first`` on, at which networks run: all where the sampler draws noise, which they answer."""
        left = len(clock) - first
        count = left if clock.stochastic else math.ceil(_STEPS * (_AT_ERROR / self.tolerance) ** _POWER)
        return [first + step for step in computed_steps(left, count)]


class _Line:
    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.trail = Trail()

    def __call__(self, calls: Calls, moment: Moment) -> Predicted:
        clock, _ = known(moment)
        if not self.trail.steps:
            return self._begin(calls, moment, clock)
        guess = self.trail.extrapolated(clock, moment.step)
        if moment.step not in self.computed:
            return Predicted(mixture=_to_network(guess, calls, moment))
        return self._compute(calls, moment, clock, guess)

    def _begin(self, calls: Calls, moment: Moment, clock: Clock) -> Predicted:
        self.computed = Adaptive(self.tolerance).steps(clock, moment.step)
        self.ladder = Ladder(calls.lams[0].tolist())
        self.sleep = torch.ones_like(calls.lams, dtype=torch.long)  # computed steps from one run of a cell to the next
        self.due = torch.ones_like(self.sleep)  # computed steps until the next one
        self.ran = torch.full((2, *calls.lams.shape), moment.step)  # each cell's last two steps with a run
        pair = predictions(calls, *weighty(calls, moment), shared=moment.shared)
        mixture = mixed(calls, *pair)
        self.trail.record(moment.step, _to_form(mixture, calls, moment))
        return Predicted(mixture=mixture, pair=self._pair(calls, pair, calls.every(), mixture), span=1)

    def _compute(self, calls: Calls, moment: Moment, clock: Clock, guess: Tensor) -> Predicted:
        now, trail = moment.step, self.trail
        cells = self.ladder.roots | (self.due <= 1)
        pair = predictions(calls, *(cells & wanted for wanted in weighty(calls, moment)))
        found = calls.where(cells, _to_form(mixed(calls, *pair), calls, moment) - guess)
        said = self.ladder.predicted(found, cells)
        surprise = calls.where(cells & ~self.ladder.roots, found - said)
        value = guess + said + surprise
        owed = trail.payback(clock, now) * said + calls.over(self._debt(clock, now, cells)) * surprise
        # the record before the last was itself predicted for cells that slept: it shares in the surprise
        trail.values[0] = trail.values[0] + calls.over(self._share(clock, now, trail.steps[0], cells)) * surprise
        self._schedule(clock.pull[now] * len(clock) * _size(surprise, moment) / _size(value, moment), clock, cells)
        self.ran = torch.where(cells, torch.stack([torch.full_like(self.ran[0], now), self.ran[0]]), self.ran)
        trail.record(now, value)
        mixture = _to_network(value + owed, calls, moment)
        later = [step for step in self.computed if step > now]
        return Predicted(
            mixture=mixture,
            pair=self._pair(calls, pair, cells, mixture),
            span=(later[0] if later else len(clock)) - now,
        )

    def _debt(self, clock: Clock, now: int, cells: Tensor) -> Tensor:
        """Payback of each cell's surprise over the steps since it last ran, (I, L)."""
        return self._by_record(cells, lambda last, before: clock.payback(now, last, before))

    def _share(self, clock: Clock, now: int, at: int, cells: Tensor) -> Tensor:
        """How much of its surprise now each cell had at a step before, (I, L)."""
        return self._by_record(cells, lambda last, before: clock.shape(at, now, last, before)).clamp(0, 1)

    def _by_record(self, cells: Tensor, function: Callable[[int, int | None], float]) -> Tensor:
        values = torch.zeros(cells.shape)
        last, before = self.ran
        for one in torch.unique(self.ran[:, cells], dim=1).T.tolist():
            values[(last == one[0]) & (before == one[1])] = function(one[0], one[1] if one[1] != one[0] else None)
        return values

    def _schedule(self, surprise: Tensor, clock: Clock, cells: Tensor) -> None:
        """Let cells sleep longer the less they surprised, as surprises grow with the square of the sleep."""
        allowed = 25 * self.tolerance if clock.stochastic else math.sqrt(_AT_ERROR * self.tolerance)
        ratio = allowed / surprise.cpu().clamp(min=1e-9)
        longest = (self.sleep + 1).clamp(max=_LONGEST_SLEEP[clock.stochastic])
        asleep = (0.9 * self.sleep * ratio.sqrt()).floor().long().clamp(min=1).minimum(longest)
        self.sleep = torch.where(cells, asleep, self.sleep)
        self.due = torch.where(cells, asleep, self.due - 1)

    def _pair(self, calls: Calls, pair: tuple[Tensor, Tensor], cells: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Both models at all cells: where one didn't run, the difference is interpolated over lam."""
        difference = self.ladder.predicted(calls.where(cells, pair[1] - pair[0]), cells)
        difference = torch.where(calls.over(cells), pair[1] - pair[0], difference)
        return mixture - calls.weights() * difference, mixture + (1 - calls.weights()) * difference


def _to_form(mixture: Tensor, calls: Calls, moment: Moment) -> Tensor:
    clock, level = known(moment)
    return convert(mixture.float(), _noisy(calls, mixture), level, clock.source, clock.form)


def _to_network(value: Tensor, calls: Calls, moment: Moment) -> Tensor:
    clock, level = known(moment)
    return convert(value, _noisy(calls, value), level, clock.form, clock.source).to(calls.sample.dtype)


def _noisy(calls: Calls, like: Tensor) -> Tensor:
    """x_t: some denoisers take further channels after it."""
    return calls.sample[:, :, :, : like.shape[3]].float()


def _size(value: Tensor, moment: Moment) -> Tensor:
    """Norm of the guided prediction, (I, L)."""
    if moment.guidance is not None:
        value = value[:1] + moment.guidance * (value[1:] - value[:1])
    return value.movedim(0, 2).flatten(2).norm(dim=2)
