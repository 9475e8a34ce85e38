"""How an error of a prediction at one step reaches the sample, and the coordinates in which predictions are smooth.

In the coordinate ``z = x_t / alpha_t`` (for rectified flows ``x_t`` itself) a step of a first-order sampler is

    z_{j+1} = decay_j z_j + weight_j (what is predicted) + noise,

where "what is predicted" is eps for deterministic samplers on variance-preserving schedules (decay = 1, weight =
s_{j+1} - s_j with s = sigma / alpha: DDIM is Euler's method in s), the velocity for rectified flows (weight =
sigma_{j+1} - sigma_j), and x_0 for samplers that draw noise, whose posterior mean keeps (s_{j+1} / s_j)² of z.  In that
form a prediction is near linear in ``time``: log-SNR, sigma, and s.  (Fresh noise moves eps but hardly x_0.)
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deradiff.errors import RealignError
from deradiff.noise import NoiseLevel, is_flow, is_stochastic, noise_at, noise_levels, prediction_type


@dataclass(frozen=True, eq=False)
class SolverCoefficients:
    """A scheduler's steps, N of them.

    Attributes:
        stochastic: whether the sampler draws noise.
        source: what the network predicts.
        form: the form in which it is extrapolated.
        levels: the N + 1 noise levels.
        time: coordinate in which the form is near linear, (N,), monotone.
        weight: what a step adds of its prediction, (N,).
        decay: share of z that a step keeps, (N,).
        sensitivity: what a relative error of a step's prediction does to the final sample, about and relative, (N,).
    """

    stochastic: bool
    source: str
    form: str
    levels: NoiseLevel
    time: list[float]
    weight: list[float]
    decay: list[float]
    sensitivity: list[float]

    def __len__(self) -> int:
        return len(self.time)

    def step_of(self, level: NoiseLevel) -> int:
        """The step whose network input has this level."""
        return int((_noise_share(self.levels)[:-1] - _noise_share(level)).abs().argmin())

    def linear(self, now: int, last: int, before: int | None) -> float:
        """``f`` of the extrapolation ``last + f (last - before)``; 0 where there is no slope."""
        if before is None:
            return 0.0
        width = self.time[last] - self.time[before]
        return (self.time[now] - self.time[last]) / width

    def shape(self, at: int, now: int, last: int, before: int | None) -> float:
        """The error at step ``at`` of a linear extrapolation from two records, as a share of that at ``now``.

        The remainder of linear interpolation: ``(t - t_last) (t - t_before)``; linear where there was no slope.
        """
        t = self.time
        if t[last] in (float("inf"), float("-inf")):
            return 1.0
        share = (t[at] - t[last]) / (t[now] - t[last])
        if before is None or t[before] in (float("inf"), float("-inf")):
            return share
        return share * (t[at] - t[before]) / (t[now] - t[before])

    def error_correction(self, now: int, last: int, before: int | None) -> float:
        """What to add to the prediction at ``now``, per unit of its discrepancy, to undo the steps since ``last``.

        Between ``last`` and ``now`` predictions were extrapolated; the discrepancy found at ``now`` tells their errors
        (:meth:`shape`), the solver what these did to z, and one step's prediction can undo it.
        """
        drift = 0.0
        for step in range(last + 1, now):
            drift = self.decay[step] * drift + self.weight[step] * self.shape(step, now, last, before)
        return self.decay[now] * drift / self.weight[now]


def solver_coefficients(scheduler: Any) -> SolverCoefficients:
    """The coefficients of a scheduler's steps after ``set_timesteps``.

    Raises:
        ScheduleError: its schedule can't be read.
        RealignError: it calls the network several times a step.
    """
    levels, flow, stochastic = noise_levels(scheduler), is_flow(scheduler), is_stochastic(scheduler)
    share = _noise_share(levels)
    if getattr(scheduler, "order", 1) > 1 or not bool((share[1:] < share[:-1]).all()):
        raise RealignError(
            f"{type(scheduler).__name__} calls the network several times a step, so nothing can be reused between "
            "steps; take another scheduler, or policy=Exact()"
        )
    scale = levels.sigma / levels.alpha
    if stochastic:
        decay = torch.where(scale[:-1].isinf(), 0.0, (scale[1:] / scale[:-1]).square())
        form, time, weight = "sample", scale[:-1], 1 - decay
    elif flow:
        form, time, weight = "flow_prediction", levels.sigma[:-1], levels.sigma.diff().abs()
        decay = torch.ones_like(weight)
    else:
        form, time, weight = "epsilon", levels.log_snr[:-1], scale.diff().abs()
        decay = torch.ones_like(weight)
    sensitivity = weight / (1 + scale[1:].square()).sqrt() if form == "epsilon" else weight
    source = prediction_type(scheduler)
    return SolverCoefficients(
        stochastic, source, form, levels, time.tolist(), weight.tolist(), decay.tolist(), sensitivity.tolist()
    )


def level_now(scheduler: Any, timestep: Any) -> NoiseLevel:
    """The level of a network call."""
    return noise_at(scheduler, torch.as_tensor(timestep).flatten()[0])


def _noise_share(level: NoiseLevel) -> Tensor:
    return level.sigma / (level.alpha + level.sigma)


class LinearExtrapolator:
    """Records of a prediction at steps at which it was known; ``steps[0]`` is the last one."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.steps: list[int] = []

    @property
    def before(self) -> int | None:
        """The step of the record before the last."""
        return self.steps[1] if len(self.steps) > 1 else None

    def extrapolated(self, solver: SolverCoefficients, now: int) -> Tensor:
        """Linear in the solver's time coordinate; the last record alone where there is but one."""
        factor = solver.linear(now, self.steps[0], self.before)
        return self.values[0] + factor * (self.values[0] - self.values[-1])

    def error_correction(self, solver: SolverCoefficients, now: int) -> float:
        """See :meth:`SolverCoefficients.error_correction`."""
        return solver.error_correction(now, self.steps[0], self.before)

    def record(self, now: int, value: Tensor) -> None:
        """Note what was predicted at a step."""
        self.values = [value, *self.values[:1]]
        self.steps = [now, *self.steps[:1]]
