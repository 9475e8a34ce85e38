"""Calling a realigned pipeline with K particles an image, or with its paths recorded."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from deradiff.acceleration import Exact
from deradiff.errors import RealignError
from deradiff.noise import renoises
from deradiff.realignment.expand import check_generators, expanded, resampling_generators, select_rows
from deradiff.realignment.hook import Hook
from deradiff.realignment.intercept import Call
from deradiff.realignment.rows import BatchInfo
from deradiff.trajectory import Observer, PathRecorder, Paths


def check_particles(particles: Any) -> int:
    """K, validated.

    Raises:
        RealignError: no whole number of at least 1.
    """
    if isinstance(particles, bool) or not isinstance(particles, int) or particles < 1:
        raise RealignError(f"particles is {particles!r}; expected a whole number of 1 or more, such as 8")
    return particles


def run_with_particles(
    hooks: Sequence[Hook],
    observing: Callable[[Observer], AbstractContextManager[None]],
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run: BatchInfo,
    *,
    keep_all: bool,
) -> tuple[Any, Paths]:
    """A pipeline's output with ``run.particles`` particles an image, and what its paths tell.

    Args:
        hooks: of its denoisers.
        observing: lets an observer be told of their calls.
        call: the pipeline.
        args: of the call.
        kwargs: of the call.
        run: what the arguments say of the batch.
        keep_all: whether all particles come back, K an image side by side, or one drawn by weight.

    Raises:
        RealignError: particles can't be weighed in this pipeline.
    """
    given = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    schedulers = {id(scheduler): scheduler for scheduler in (hook.scheduler() for hook in hooks)}
    several = len(schedulers) > 1 or any(len(hook.anchors) > 1 for hook in hooks)
    many = run.particles > 1
    if many:
        _check_supported(hooks, run, several=several)
        check_generators(given, run)
        generators = resampling_generators(given, run.images)
        args, kwargs = expanded(call, args, kwargs, run)
    else:
        generators = [torch.Generator()] * run.images
    walk = PathRecorder(generators, run.particles)
    known = not several and None not in schedulers.values()
    if not known:
        walk.unknown = "it has several schedulers or several anchors, or none"
    with observing(walk.observe), walk.along(next(iter(schedulers.values()))) if known else nullcontext():
        output = call(*args, **kwargs)
    paths = walk.paths()
    return select_rows(output, run.rows, paths.rows) if many and not keep_all else output, paths


def particle_warnings(lams: Sequence[float], scheduler: Any, *, stochastic: bool) -> list[str]:
    """What a user of particles should know of the lams and the sampler in force."""
    told: list[str] = []
    if all(lam in (0, 1) for lam in lams):
        told.append("at lam = 0 and 1 all weights are 1, so particles correct nothing there: plain sampling is as good")
    if any(lam > 1 for lam in lams):
        told.append(
            "beyond lam = 1 weights did harm on trained models (docs/exactness.md): take particles=1 there, or better "
            "a stronger anchor at lam below 1"
        )
    if not stochastic:
        told.append(
            f"{type(scheduler).__name__} draws no noise, so copies of a particle would stay copies: particles are "
            "weighed and one is drawn at the end, but none is resampled; an ancestral or SDE sampler corrects fully"
        )
    if renoises(scheduler):
        told.append(
            f"{type(scheduler).__name__} noises its prediction of x_0 anew at each step, an error of its own that is "
            "larger than what particles correct; take an ancestral or SDE sampler"
        )
    return told


def _check_supported(hooks: Sequence[Hook], run: BatchInfo, *, several: bool) -> None:
    if several:
        raise RealignError("particles take one anchor and one scheduler; leave particles= out")
    if run.prompts is None:
        raise RealignError("the pipeline's arguments don't say how many images it makes; leave particles= out")
    if any(hook.runner is not None and not isinstance(hook.runner.policy, Exact) for hook in hooks):
        raise RealignError("particles need the predictions of both models at every step; leave policy= out")
