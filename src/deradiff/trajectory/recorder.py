"""Records one run of a pipeline step by step: the denoiser's calls, joined with the scheduler's steps.

The hook reports each call of the denoiser, and the recorder wraps the scheduler's ``step``, which every pipeline calls.
Inside the wrapper x_t is still available when its weight is known, so particles can resample before the step; a
callback at the end of a step would come too late.
"""

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from deradiff.divergence import log_weight_increment
from deradiff.errors import RealignError, ScheduleError
from deradiff.noise import NoiseLevel, is_stochastic, prediction_type
from deradiff.sampling import around_step
from deradiff.trajectory.calls import CallBuffer, DenoiserCall
from deradiff.trajectory.smc import Particles, permute_solver_state, select_rows
from deradiff.trajectory.statistics import Paths, PathStatistics
from deradiff.trajectory.transition import Transition, draws_posterior, recover_noise, step_levels


class PathRecorder:
    """The recorder of one run with images * K rows.

    Args:
        generators: one for each image, for resampling.
        particles: K for each image; 1 records without correction.

    Attributes:
        unknown_reason: why paths are not recorded; None while they are.
        stochastic: whether steps draw noise; None before the first step.
    """

    def __init__(self, generators: Sequence[torch.Generator], particles: int) -> None:
        self.particles = Particles(generators, particles)
        self.rows = len(generators) * particles
        self.unknown_reason: str | None = (
            None if self.rows else "the pipeline's arguments don't say how many images it makes"
        )
        self.statistics: PathStatistics | None = None
        self.stochastic: bool | None = None
        self.buffer = CallBuffer()
        self.previous: NoiseLevel | None = None

    def observe(self, call: DenoiserCall) -> None:
        """Receive a call of the denoiser."""
        self.buffer.calls.append(call)

    @contextmanager
    def record_steps(self, scheduler: Any) -> Generator[None]:
        """Record the scheduler's steps inside the block."""
        with around_step(scheduler, lambda step, args, kwargs: self._step(scheduler, step, args, kwargs)):
            yield

    def paths(self) -> Paths:
        """The statistics of the run, after sampling one particle of each image.

        Raises:
            RealignError: the weights of particles are unknown.
        """
        if self.statistics is None and self.unknown_reason is None:
            self.unknown_reason = "the pipeline never calls its scheduler's step"
        corrected = self.particles.count > 1
        if self.unknown_reason and corrected:
            raise RealignError(f"particles can't be weighted: {self.unknown_reason}; leave particles= out")
        rows = self.particles.sample_final() if corrected else torch.arange(self.rows)
        defined = {}
        if self.statistics and not self.unknown_reason:
            defined = {name: value[rows] for name, value in self.statistics.defined(exact=self.buffer.is_exact).items()}
        log_weights = self.particles.log_weights
        return Paths(
            **{name: defined.get(name) for name in PathStatistics.NAMES},
            log_weight=None if self.unknown_reason else log_weights.flatten()[rows],
            ess=self.particles.ess() if corrected else None,
            ancestors=self.particles.n_ancestors() if corrected else None,
            log_weights=log_weights if corrected else None,
            stochastic=self.stochastic,
            unknown_reason=self.unknown_reason,
            rows=rows,
        )

    def _step(self, scheduler: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = inspect.signature(original).bind(*args, **kwargs)
        arguments = bound.arguments
        transition = None if self.unknown_reason else self._transition(scheduler, arguments)
        self.buffer.calls = []
        if transition is None:
            return original(*args, **kwargs)
        eta = float(arguments.get("eta") or 0.0)
        self.stochastic = is_stochastic(scheduler) or eta > 0
        if self.statistics is None:
            self.statistics = PathStatistics(self.rows, knows_noise=draws_posterior(scheduler, eta))
        self.particles.add_log_weights(log_weight_increment(transition.q, transition.lam))
        if self.particles.count > 1 and self.stochastic:  # without noise, copies would stay identical
            transition = self._resample(scheduler, arguments, transition)
        self.statistics.add_step(transition)
        output = original(*bound.args, **bound.kwargs)
        if self.statistics.knows_noise:
            x_s = output[0] if isinstance(output, tuple) else output.prev_sample
            noise = recover_noise(scheduler, transition, arguments["model_output"], arguments["sample"], x_s)
            self.statistics.add_noise_term(transition, noise)
        return output

    def _resample(self, scheduler: Any, arguments: dict[str, Any], transition: Transition) -> Transition:
        """Resample rows: in the step's arguments, the scheduler's state and the statistics."""
        index = self.particles.resample()
        if index is None:
            return transition
        for name in ("model_output", "sample"):
            arguments[name] = select_rows(arguments[name], index)
        permute_solver_state(scheduler, index)
        assert self.statistics is not None
        self.statistics.select(index)
        return transition.select(index)

    def _transition(self, scheduler: Any, arguments: dict[str, Any]) -> Transition | None:
        """The step that the calls since the last one imply; None if it can't be inferred, with `unknown_reason` set."""
        output = arguments["model_output"]
        if len(output) != self.rows:
            self.unknown_reason = f"its scheduler steps {len(output)} rows for {self.rows} images"
        elif any(call.extrapolated for call in self.buffer.calls):
            self.unknown_reason = "its policy extrapolates the difference of the models"
        elif "learned" in str(getattr(scheduler, "config", {}).get("variance_type")):
            self.unknown_reason = "it learns its variance"
        if self.unknown_reason:
            return None
        try:
            level, following, last = step_levels(scheduler, arguments["timestep"], self.previous)
            form = prediction_type(scheduler)
            inferred = self.buffer.difference(output, form, level)
        except ScheduleError as error:
            self.unknown_reason = str(error)
            return None
        if inferred is None:
            self.unknown_reason = "its scheduler's input is not a linear combination of its denoiser's predictions"
            return None
        previous, self.previous = self.previous or level, level
        difference, lam = inferred
        return Transition(
            difference=difference, form=form, lam=lam, previous=previous, level=level, next=following, last=last
        )
