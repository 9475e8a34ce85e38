"""What the user holds of a realigned pipeline: changes lam on the fly, and takes everything off again."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch

from deradiff.anchor.adapters import refuse_fused
from deradiff.anchor.ensembles import BatchedAdapters, Interpolated
from deradiff.errors import RealignError
from deradiff.paths import Observer, Paths
from deradiff.realignment.correct import cautions, checked_count, walked
from deradiff.realignment.hook import Hook
from deradiff.realignment.intercept import Call
from deradiff.realignment.lams import LamGiven, Lams
from deradiff.realignment.limits import refuse_cache, refuse_replaced, refuse_rows
from deradiff.realignment.rows import Run, check_count, run_of
from deradiff.reuse import Budget, Grid, Policy

logger = logging.getLogger("deradiff")


class Handle:
    """A realigned pipeline; also a context manager that removes itself.

    Attributes:
        components: names of the denoisers that are realigned.
        anchors: names of the anchors; ``("aligned",)`` where there is one.
        cards: by anchor, what it says of itself (beta, its convention, seed); empty where it says nothing.
        all_particles: whether a call returns all K particles of an image, side by side, or one drawn by weight.
        paths: what the last call tells of its images, where it was recorded or had particles.
    """

    def __init__(self, pipe: Any, hooks: list[Hook], cards: dict[str, Any]) -> None:
        self._pipe, self._hooks, self._undo, self._removed = pipe, hooks, ExitStack(), False
        self.components = tuple(hook.component for hook in hooks)
        self.anchors = tuple(dict.fromkeys(name for hook in hooks for name in hook.anchors))
        self.cards = cards
        self.all_particles = False
        self.paths: Paths | None = None
        self._particles, self._recording = 1, False
        self._told: set[str] = set()

    @property
    def particles(self) -> int:
        """K particles an image, of the Feynman–Kac correction; 1 is plain DeRaDiff.

        Raises (when set):
            RealignError: no whole number of 1 or more.
        """
        return self._particles

    @particles.setter
    def particles(self, given: int) -> None:
        self._refuse_removed()
        self._particles = checked_count(given)

    @property
    def lam(self) -> Any:
        """Mixing weight: 0 is the reference, 1 the anchor; a float, or one per image; by name for several anchors.

        Raises (when set):
            LamError: not finite, or of another count or other names than the anchors'.
        """
        return self._lams.given(self.anchors)

    @lam.setter
    def lam(self, given: LamGiven) -> None:
        self._refuse_removed()
        self._lams = Lams.of(given, self.anchors)
        for hook in self._hooks:
            own = tuple(self._lams.values[self.anchors.index(name)] for name in hook.anchors)
            hook.lams = Lams(own)

    @contextmanager
    def observing(self, observer: Observer) -> Iterator[None]:
        """Inside the block ``observer`` is told of every call of a denoiser, for which all models run.

        Raises:
            RealignError: the weights are mixed (``mode="weights"``), so there are no single predictions.
        """
        self._refuse_removed()
        self._refuse_weights()
        for hook in self._hooks:
            hook.observers.append(observer)
        try:
            yield
        finally:
            for hook in self._hooks:
                hook.observers.remove(observer)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside the block each call of the pipeline leaves in ``paths`` what it tells of its images.

        All models run at every lam; no network is called for it otherwise.

        Raises:
            RealignError: the handle was removed, or mixes weights, so that there are no two predictions.
        """
        self._refuse_removed()
        self._refuse_weights()
        before, self._recording = self._recording, True
        try:
            yield
        finally:
            self._recording = before

    @contextmanager
    def sweeping(self, lams: int, policy: Policy, budget: Budget) -> Iterator[None]:
        """Inside the block the rows of a batch are images x lams, and networks are called as a policy says.

        Args:
            lams: how many rows each image has, side by side, equal but for lam.
            policy: how networks are called.
            budget: rows at once; counts the network calls.

        Raises:
            RealignError: several anchors, or mixed weights.
        """
        before = [(hook.grid, hook.lams_an_image, hook.budget) for hook in self._hooks]
        self.call_by(policy)
        for hook in self._hooks:
            hook.lams_an_image, hook.budget = lams, budget
        try:
            yield
        finally:
            for hook, own in zip(self._hooks, before, strict=True):
                hook.grid, hook.lams_an_image, hook.budget = own

    def call_by(self, policy: Policy) -> None:
        """Call the networks as a policy says, from now on.

        Raises:
            RealignError: no policy, several anchors, or mixed weights.
        """
        self._refuse_removed()
        if isinstance(policy, type) or not hasattr(policy, "line"):
            raise RealignError(f"policy is {policy!r}; expected Exact(), Reuse(3) or Adaptive(0.01)")
        if any(isinstance(hook.models, Interpolated) for hook in self._hooks):
            raise RealignError("mode='weights' runs one network a step, which no policy can save; leave it out")
        if several := [hook.component for hook in self._hooks if len(hook.anchors) > 1]:
            raise RealignError(f"a policy takes one anchor a denoiser, but {several[0]} has several; leave it out")
        for hook in self._hooks:
            hook.grid = Grid(policy, hook.scheduler, self._guidance)

    def _guidance(self) -> float | None:
        if not getattr(self._pipe, "do_classifier_free_guidance", False):
            return None
        return float(torch.as_tensor(self._pipe.guidance_scale).double().mean())  # some have one a frame

    def remove(self) -> None:
        """Take everything off: the pipeline is bit for bit what it was. May be called again."""
        for hook in self._hooks:
            hook.models.on_run_end()
        self._undo.close()
        self._removed = True

    def _refuse_weights(self) -> None:
        if any(isinstance(hook.models, Interpolated) for hook in self._hooks):
            raise RealignError("mode='weights' runs one network, so there is nothing to observe; use another mode")

    def _refuse_removed(self) -> None:
        if self._removed:
            raise RealignError("this handle has been removed, so the pipeline is plain; call deradiff.realign again")

    def __enter__(self) -> "Handle":
        self._refuse_removed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Handle(components={self.components}, anchors={self.anchors}, lam={self.lam})"

    def _call_pipeline(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = replace(run_of(call, args, kwargs), particles=self.particles)
        check_count(self._lams.count, run)
        pipe = getattr(call, "__self__", None)
        batched = any(isinstance(hook.models, BatchedAdapters) for hook in self._hooks)
        refuse_rows(pipe, self._lams.count, batched=batched, particles=self.particles)
        for hook in self._hooks:
            refuse_replaced(pipe, hook.component, hook.denoiser)
            hook.models.tree.refresh()
            refuse_cache(hook.component, hook.models.tree)
            refuse_fused(hook.denoiser)
            hook.run = run
            if hook.grid is not None:
                hook.grid.begin()
        self.paths = None
        try:
            return self._run(call, args, kwargs, run)
        finally:
            for hook in self._hooks:
                hook.run = None
                hook.models.on_run_end()

    def _run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], run: Run) -> Any:
        with ExitStack() as stack:
            for hook in self._hooks:
                stack.enter_context(hook.models.tree.running())
            if self.particles == 1 and not self._recording:
                return call(*args, **kwargs)
            output, self.paths = walked(
                self._hooks, self.observing, call, args, kwargs, run, keep_all=self.all_particles
            )
            self._caution(self.paths)
            return output

    def _caution(self, paths: Paths) -> None:
        """Tell what particles can't do here, once."""
        if self.particles > 1:
            lams = [lam for values in self._lams.values for lam in values]
            for told in cautions(lams, self._hooks[0].scheduler(), stochastic=bool(paths.stochastic)):
                if told not in self._told:
                    logger.warning("particles: %s", told)
                    self._told.add(told)
