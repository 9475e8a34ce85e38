"""One run of a pipeline, step by step: its denoiser's calls joined with its scheduler's steps.

The hook tells of each call of the denoiser; the scheduler's ``step``, which every pipeline calls, is gone around.
There, and not in a callback at a step's end, x_t is still in hand when its weight is known, so that particles resample
before the step.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from deradiff.divergence import log_weight_increment
from deradiff.errors import RealignError, ScheduleError
from deradiff.noise import NoiseLevel, is_stochastic, prediction_type
from deradiff.sampling import around_step
from deradiff.trajectory.call_buffer import CallBuffer
from deradiff.trajectory.denoiser_call import DenoiserCall
from deradiff.trajectory.smc import Particles, permute_solver_state, take
from deradiff.trajectory.statistics import Paths, PathStatistics
from deradiff.trajectory.transition import Transition, draws_posterior, levels_of, recover_noise


class PathRecorder:
    """What happens along one run, to ``images`` x K rows.

    Args:
        generators: one an image, for who survives.
        particles: K, of each image; 1 corrects nothing.
    """

    def __init__(self, generators: Sequence[torch.Generator], particles: int) -> None:
        self.particles = Particles(generators, particles)
        self.rows = len(generators) * particles
        self.unknown: str | None = None if self.rows else "the pipeline's arguments don't say how many images it makes"
        self.sums: PathStatistics | None = None
        self.stochastic: bool | None = None  # whether steps draw noise, once one is seen
        self.told = CallBuffer()
        self.previous: NoiseLevel | None = None

    def observe(self, step: DenoiserCall) -> None:
        """Be told of a call of the denoiser."""
        self.told.calls.append(step)

    @contextmanager
    def along(self, scheduler: Any) -> Iterator[None]:
        """Inside the block the scheduler's steps are part of the walk."""
        with around_step(scheduler, lambda step, args, kwargs: self._step(scheduler, step, args, kwargs)):
            yield

    def paths(self) -> Paths:
        """What is known at the end, of the particles that are chosen now.

        Raises:
            RealignError: particles could not be weighed.
        """
        if self.sums is None and self.unknown is None:
            self.unknown = "the pipeline never calls its scheduler's step"
        corrected = self.particles.count > 1
        if self.unknown and corrected:
            raise RealignError(f"particles can't be weighed: {self.unknown}; leave particles= out")
        rows = self.particles.sample_final() if corrected else torch.arange(self.rows)
        known = (
            {} if self.unknown or not self.sums else {n: v[rows] for n, v in self.sums.known(self.told.exact).items()}
        )
        log_weights = self.particles.log_weights
        return Paths(
            **{name: known.get(name) for name in PathStatistics.NAMES},
            log_weight=None if self.unknown else log_weights.flatten()[rows],
            ess=self.particles.ess() if corrected else None,
            ancestors=self.particles.ancestors() if corrected else None,
            log_weights=log_weights if corrected else None,
            stochastic=self.stochastic,
            unknown=self.unknown,
            rows=rows,
        )

    def _step(self, scheduler: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs)
        arguments = given.arguments
        transition = None if self.unknown else self._transition(scheduler, arguments)
        self.told.calls = []
        if transition is None:
            return original(*args, **kwargs)
        eta = float(arguments.get("eta") or 0.0)
        self.stochastic = is_stochastic(scheduler) or eta > 0
        if self.sums is None:
            self.sums = PathStatistics(self.rows, draws=draws_posterior(scheduler, eta))
        self.particles.weigh(log_weight_increment(transition.q, transition.lam))
        if self.particles.count > 1 and self.stochastic:  # copies would stay copies where no noise is drawn
            transition = self._resample(scheduler, arguments, transition)
        self.sums.step(transition)
        output = original(*given.args, **given.kwargs)
        if self.sums.draws:
            after = output[0] if isinstance(output, tuple) else output.prev_sample
            noise = recover_noise(scheduler, transition, arguments["model_output"], arguments["sample"], after)
            self.sums.add_noise_term(transition, noise)
        return output

    def _resample(self, scheduler: Any, arguments: dict[str, Any], transition: Transition) -> Transition:
        """Rows whose weight is small give way, in all that the step is given and remembers."""
        index = self.particles.resample()
        if index is None:
            return transition
        for name in ("model_output", "sample"):
            arguments[name] = take(arguments[name], index)
        permute_solver_state(scheduler, index)
        assert self.sums is not None
        self.sums.take(index)
        return transition.take(index)

    def _transition(self, scheduler: Any, arguments: dict[str, Any]) -> Transition | None:
        """What the step is, from the calls since the last one; None, and why, where it can't be inferred."""
        output = arguments["model_output"]
        if len(output) != self.rows:
            self.unknown = f"its scheduler steps {len(output)} rows, where {self.rows} images are made"
        elif any(call.extrapolated for call in self.told.calls):
            self.unknown = "its policy extrapolates the difference of the models"
        elif "learned" in str(getattr(scheduler, "config", {}).get("variance_type")):
            self.unknown = "it learns its variance"
        if self.unknown:
            return None
        try:
            level, following, last = levels_of(scheduler, arguments["timestep"], self.previous)
            form = prediction_type(scheduler)
            told = self.told.difference(output, form, level)
        except ScheduleError as error:
            self.unknown = str(error)
            return None
        if told is None:
            self.unknown = "what it gives its scheduler is no linear combination of what its denoiser predicts"
            return None
        behind, self.previous = self.previous or level, level
        difference, lam = told
        return Transition(
            difference=difference, form=form, lam=lam, previous=behind, level=level, next=following, last=last
        )
