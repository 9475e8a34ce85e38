"""The handle of a realigned pipeline: changes lam on the fly, and undoes the realignment."""

# pyright: reportPrivateUsage=false
# The functions at the end use what a handle hides from its user.

import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any

from torch import nn

from deradiff.acceleration import Budget, Exact, Policy, PolicyRunner, Weights
from deradiff.anchor.adapters import check_not_fused
from deradiff.anchor.ensembles import BatchedAdapters, Interpolated
from deradiff.errors import RealignError
from deradiff.realignment.batch import BatchInfo, PipelineCall, check_count, infer_batch
from deradiff.realignment.hook import DenoiserHook
from deradiff.realignment.intercept import Call, intercept, owner_of
from deradiff.realignment.lams import LamLike, Lams
from deradiff.realignment.limits import check_modules, check_no_step_cache, check_rows_are_images, check_same_denoiser
from deradiff.realignment.particles import check_particles, particle_warnings, run_recorded
from deradiff.trajectory import Observer, Paths
from deradiff.validation import closest_hint

logger = logging.getLogger("deradiff")


class Handle:
    """A realigned pipeline; also a context manager that removes itself.

    Its pipeline may be called from several threads: runs wait for one another.  A run keeps the lam that was set when
    it began; in the middle of a run only the thread that runs it (in a callback) changes it.

    Attributes:
        components: names of the denoisers that are realigned.
        anchors: names of the anchors; ``("aligned",)`` where there is one.
        return_all_particles: whether a call returns all K particles of an image, side by side, or one drawn by weight.
        paths: statistics of the last call's trajectories, where it was recorded or had particles.
    """

    __slots__ = (
        "__weakref__",
        "_hooks",
        "_lams",
        "_lock",
        "_particles",
        "_pipe",
        "_recording",
        "_removed",
        "_running",
        "_undo",
        "_warned",
        "anchors",
        "components",
        "paths",
        "return_all_particles",
    )

    def __init__(self, pipe: Any, hooks: list[DenoiserHook]) -> None:
        self._pipe, self._hooks, self._undo, self._removed = pipe, hooks, ExitStack(), False
        self.components = tuple(hook.component for hook in hooks)
        self.anchors = tuple(dict.fromkeys(name for hook in hooks for name in hook.anchors))
        self.return_all_particles = False
        self.paths: Paths | None = None
        self._particles, self._recording = 1, False
        self._lock = threading.RLock()  # held by a run, and by what changes how the denoisers run
        self._running: int | None = None  # the thread that runs the pipeline
        for hook in hooks:
            hook.lock = self._lock
        self._warned: set[str] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):  # misspelled: it would change nothing
            settable = [known for known in dir(type(self)) if not known.startswith("_")]
            raise AttributeError(f"a handle has no attribute {name!r}; {closest_hint(name, settable)}")
        super().__setattr__(name, value)

    @property
    def particles(self) -> int:
        """K particles an image, of the Feynman–Kac correction; 1 is plain DeRaDiff.

        Raises (when set):
            RealignError: no whole number of 1 or more.
        """
        return self._particles

    @particles.setter
    def particles(self, particles: int) -> None:
        self._check_attached()
        self._particles = check_particles(particles)

    @property
    def lam(self) -> Any:
        """Mixing weight: 0 is the reference, 1 the anchor; a float, or one per image; by name for several anchors.

        Raises (when set):
            LamError: not finite, or of another count or other names than the anchors'.
        """
        return self._lams.by_anchor(self.anchors)

    @lam.setter
    def lam(self, lam: LamLike) -> None:
        self._check_attached()
        self._lams = Lams.parse(lam, self.anchors)
        values = [value for row in self._lams.values for value in row]
        if any(value > 1 for value in values):
            self._warn(
                "lam above 1 extrapolates beyond the anchor, which nothing bounds or corrects; an anchor of smaller "
                "beta at a lam below 1 is the surer way there (docs/exactness.md)"
            )
        if any(value < 0 for value in values):
            self._warn("lam below 0 moves away from the anchor, which is the opposite of aligning to it")
        if self._running in (None, threading.get_ident()):
            self._apply_lams()

    def _apply_lams(self) -> None:
        for hook in self._hooks:
            hook.lams = Lams(tuple(self._lams.values[self.anchors.index(name)] for name in hook.anchors))

    @contextmanager
    def recording(self) -> Generator[None]:
        """Inside the block each call of the pipeline leaves the statistics of its trajectories in ``paths``.

        All models run at every lam; no network is called for it otherwise.

        Raises:
            RealignError: the handle was removed, or mixes weights, so that there are no two predictions.
        """
        self._check_attached()
        _check_two_models(self._hooks)
        before, self._recording = self._recording, True
        try:
            yield
        finally:
            self._recording = before

    @property
    def policy(self) -> Policy:
        """How predictions are evaluated (docs/performance.md).

        Raises (when set):
            RealignError: no policy; several anchors; `Weights`, which is chosen when a pipeline is realigned, or any
                other after it.
        """
        return self._hooks[0].runner.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._check_attached()
        if isinstance(policy, Weights):
            raise RealignError(
                "Weights() can't follow another policy; give it to deradiff.realign(..., policy=Weights())"
            )
        if isinstance(policy, type) or not hasattr(policy, "start"):
            raise RealignError(f"policy is {policy!r}; expected Exact(), Reuse(3) or Adaptive(0.01)")
        if isinstance(self.policy, Weights):
            raise RealignError("policy=Weights() runs one network a step, of which no other policy can save any")
        several = [hook.component for hook in self._hooks if len(hook.anchors) > 1]
        if several and not isinstance(policy, Exact):
            raise RealignError(f"{policy} takes one anchor a denoiser, but {several[0]} has several; leave it out")
        with self._lock:
            for hook in self._hooks:
                hook.runner = PolicyRunner(policy, hook.scheduler, hook.runner.guidance)

    def remove(self) -> None:
        """Undo the realignment: the pipeline is bit for bit what it was. May be called again."""
        with self._lock:
            for hook in self._hooks:
                hook.ensemble.on_run_end()
            self._undo.close()
            self._removed = True

    def _check_attached(self) -> None:
        if self._removed:
            raise RealignError("this handle has been removed, so the pipeline is plain; call deradiff.realign again")

    def __enter__(self) -> "Handle":
        self._check_attached()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Handle(components={self.components}, anchors={self.anchors}, lam={self.lam})"

    def _call_pipeline(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._lock:
            if self._removed:  # while this call waited for another thread's
                return call(*args, **kwargs)
            before, self._running = self._running, threading.get_ident()
            self._apply_lams()
            try:
                return self._prepare_and_run(PipelineCall(call, args, kwargs))
            finally:
                self._running = before
                for hook in self._hooks:
                    hook.batch = None
                    hook.ensemble.on_run_end()
                self._apply_lams()  # another thread may have set some since

    def _prepare_and_run(self, call: PipelineCall) -> Any:
        pipe, batch = call.pipe, infer_batch(call, self.particles)
        check_count(self._lams.count, batch)
        batched = any(isinstance(hook.ensemble, BatchedAdapters) for hook in self._hooks)
        check_rows_are_images(pipe, self._lams.count, batched=batched, particles=self.particles)
        for hook in self._hooks:
            check_same_denoiser(pipe, hook.component, hook.denoiser)
            hook.ensemble.tree.refresh()
            check_no_step_cache(hook.component, hook.ensemble.tree)
            one_model = isinstance(hook.ensemble, Interpolated)
            check_modules(hook.component, hook.ensemble.tree, one_model=one_model)
            check_not_fused(hook.denoiser)
            hook.batch = batch
            hook.runner.on_run_start()
        self.paths = None
        return self._run(call, batch)

    def _run(self, call: PipelineCall, batch: BatchInfo) -> Any:
        with ExitStack() as stack:
            for hook in self._hooks:
                stack.enter_context(hook.ensemble.tree.running())
            if self.particles == 1 and not self._recording:
                return call.run()
            output, self.paths = run_recorded(
                self._hooks, partial(observing, self), call, batch, keep_all=self.return_all_particles
            )
            if self.particles > 1:
                lams = [lam for values in self._lams.values for lam in values]
                stochastic = bool(self.paths.stochastic)
                for warning in particle_warnings(lams, self._hooks[0].scheduler(), stochastic=stochastic):
                    self._warn(f"particles: {warning}")
            return output

    def _warn(self, warning: str) -> None:
        """Log a warning, once."""
        if warning not in self._warned:
            logger.warning(warning)
            self._warned.add(warning)


def _check_two_models(hooks: Sequence[DenoiserHook]) -> None:
    if any(isinstance(hook.ensemble, Interpolated) for hook in hooks):
        raise RealignError("policy=Weights() runs one network, so there are no two models to observe")


def handle_of(pipe: Any) -> Handle:
    """The handle of a realigned pipeline, where it wasn't kept.

    Raises:
        RealignError: the pipeline is not realigned.
    """
    handle = owner_of(pipe)
    if not isinstance(handle, Handle):
        raise RealignError(f"this {type(pipe).__name__} is not realigned; call deradiff.realign(pipe, aligned)")
    return handle


# What other modules do with a handle, and its user doesn't.


def hooks_of(handle: Handle) -> Sequence[DenoiserHook]:
    """What runs at the calls of each denoiser."""
    return handle._hooks


def attach(handle: Handle, pipe: Any, denoisers: Mapping[str, nn.Module], undo: ExitStack) -> None:
    """Route calls of a pipeline and of its denoisers through a handle, which from then on holds what undoes it all.

    Args:
        handle: of the pipeline.
        pipe: the pipeline.
        denoisers: its denoisers, by component.
        undo: what was done before, and what is done here; its owner undoes it where something fails.
    """
    for hook in handle._hooks:
        undo.callback(intercept(denoisers[hook.component], hook, handle))
    undo.callback(intercept(pipe, handle._call_pipeline, handle))
    handle._undo = undo.pop_all()


@contextmanager
def observing(handle: Handle, observer: Observer) -> Generator[None]:
    """Inside the block ``observer`` is called with every `DenoiserCall` of a denoiser, for which all models run.

    Raises:
        RealignError: the handle was removed, or interpolates weights, so that there are no single predictions.
    """
    handle._check_attached()
    hooks = handle._hooks
    _check_two_models(hooks)
    with handle._lock:
        for hook in hooks:
            hook.observers.append(observer)
        try:
            yield
        finally:
            for hook in hooks:
                hook.observers.remove(observer)


@contextmanager
def sweeping(handle: Handle, lams: int, policy: Policy, budget: Budget) -> Generator[None]:
    """Inside the block the rows of a batch are images x lams, and predictions are evaluated by a policy.

    Args:
        handle: of the pipeline.
        lams: how many rows each image has, side by side, equal but for lam.
        policy: how predictions are evaluated.
        budget: rows at once; counts network function evaluations.

    Raises:
        RealignError: several anchors, or interpolated weights.
    """
    handle._check_attached()
    hooks = handle._hooks
    with handle._lock:
        before = [(hook.runner, hook.lams_an_image, hook.budget) for hook in hooks]
        handle.policy = policy
        for hook in hooks:
            hook.lams_an_image, hook.budget = lams, budget
        try:
            yield
        finally:
            for hook, state in zip(hooks, before, strict=True):
                hook.runner, hook.lams_an_image, hook.budget = state
