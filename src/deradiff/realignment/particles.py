"""Running a realigned pipeline with K particles an image, or with its trajectories recorded."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from deradiff.acceleration import Exact
from deradiff.errors import RealignError
from deradiff.noise import renoises
from deradiff.realignment.batch import BatchInfo, PipelineCall
from deradiff.realignment.expand import check_generators, expand_call, resampling_generators, select_rows
from deradiff.realignment.hook import DenoiserHook
from deradiff.trajectory import Observer, PathRecorder, Paths


def check_particles(particles: Any) -> int:
    """K, validated.

    Raises:
        RealignError: no whole number of at least 1.
    """
    if isinstance(particles, bool) or not isinstance(particles, int) or particles < 1:
        raise RealignError(f"particles is {particles!r}; expected a whole number of 1 or more, such as 8")
    return particles


def run_recorded(
    hooks: Sequence[DenoiserHook],
    observing: Callable[[Observer], AbstractContextManager[None]],
    call: PipelineCall,
    batch: BatchInfo,
    *,
    keep_all: bool,
) -> tuple[Any, Paths]:
    """A pipeline's output with ``batch.particles`` particles an image, and the statistics of its trajectories.

    Args:
        hooks: of its denoisers.
        observing: gives their calls to an observer.
        call: of the pipeline.
        batch: of the call.
        keep_all: whether all particles come back, K an image side by side, or one drawn by weight.

    Raises:
        RealignError: particles can't be weighed in this pipeline.
    """
    schedulers = {id(scheduler): scheduler for scheduler in (hook.scheduler() for hook in hooks)}
    several = len(schedulers) > 1 or any(len(hook.anchors) > 1 for hook in hooks)
    corrects = batch.particles > 1
    if corrects:
        _check_supported(hooks, batch, several=several)
        generator = call.arguments.get("generator")
        check_generators(generator, batch)
        generators = resampling_generators(generator, batch.images)
        call = expand_call(call, batch)
    else:
        generators = [torch.Generator()] * batch.images
    recorder = PathRecorder(generators, batch.particles)
    known, first = not several and None not in schedulers.values(), next(iter(schedulers.values()))
    if not known:
        recorder.unknown_reason = "it has several schedulers or several anchors, or none"
    with observing(recorder.observe), recorder.record_steps(first) if known else nullcontext():
        output = call.run()
    paths = recorder.paths()
    return select_rows(output, batch.rows, paths.rows) if corrects and not keep_all else output, paths


def particle_warnings(lams: Sequence[float], scheduler: Any, *, stochastic: bool) -> list[str]:
    """What particles can't do at these lams with this sampler."""
    warnings: list[str] = []
    if all(lam in (0, 1) for lam in lams):
        warnings.append(
            "at lam = 0 and 1 all weights are 1, so particles correct nothing there: plain sampling is as good"
        )
    if any(lam > 1 for lam in lams):
        warnings.append(
            "beyond lam = 1 weights did harm on trained models (docs/exactness.md): take particles=1 there, or better "
            "a stronger anchor at lam below 1"
        )
    if not stochastic:
        warnings.append(
            f"{type(scheduler).__name__} draws no noise, so copies of a particle would stay copies: particles are "
            "weighed and one is drawn at the end, but none is resampled; an ancestral or SDE sampler corrects fully"
        )
    if renoises(scheduler):
        warnings.append(
            f"{type(scheduler).__name__} noises its prediction of x_0 anew at each step, an error of its own that is "
            "larger than what particles correct; take an ancestral or SDE sampler"
        )
    return warnings


def _check_supported(hooks: Sequence[DenoiserHook], batch: BatchInfo, *, several: bool) -> None:
    if several:
        raise RealignError("particles take one anchor and one scheduler; leave particles= out")
    if batch.prompts is None:
        raise RealignError("the pipeline's arguments don't say how many images it makes; leave particles= out")
    if any(not isinstance(hook.runner.policy, Exact) for hook in hooks):
        raise RealignError("particles need the predictions of both models at every step; leave policy= out")
