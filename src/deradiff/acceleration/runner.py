"""Evaluating a denoiser's calls by a policy: one session for each call that a step makes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deradiff.acceleration.cells import BatchedCall
from deradiff.acceleration.limits import unsupported_reason
from deradiff.acceleration.policies import CallContext, Policy, Prediction, Session
from deradiff.acceleration.solver import SolverCoefficients, level_now, solver_coefficients
from deradiff.errors import RealignError


class PolicyRunner:
    """Rows are images x lams (one lam an image where a pipeline is realigned plainly), once a branch of guidance.

    Args:
        policy: how networks are called.
        scheduler: of the pipeline.
        guidance: its scale of classifier-free guidance where it stacks [uncond, cond].
    """

    def __init__(self, policy: Policy, scheduler: Callable[[], Any], guidance: Callable[[], float | None]) -> None:
        self.policy, self.scheduler, self.guidance = policy, scheduler, guidance
        self.begin()

    def begin(self) -> None:
        """A run of the pipeline begins."""
        self.solver: SolverCoefficients | None = None
        self.lams: Tensor | None = None
        self.sessions: list[tuple[Session, int]] = []  # with how many branches of guidance each began
        self.step, self.place, self.began = -1, 0, -1
        self.shared = True

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, learns_variance: bool) -> bool:
        """Whether a call's rows can be taken apart.

        Raises:
            RealignError: they can't, and the policy needs it.
        """
        reason = "it learns its variance" if learns_variance else unsupported_reason(args, kwargs)
        if reason and self.policy.needs_solver:
            raise RealignError(f"the denoiser's calls can't be saved: {reason}; take the exact mode")
        return reason is None

    def __call__(self, calls: BatchedCall, timestep: Any, *, watched: bool) -> Prediction:
        """Predict a call's cells.

        Raises:
            RealignError: the number of branches of guidance changed since the run began.
        """
        self.shared = self.shared and calls.shared()
        level = None
        if self.policy.needs_solver:
            self.solver = self.solver or solver_coefficients(self.scheduler())
            level = level_now(self.scheduler(), timestep)
            session = self._session(calls, self.solver.step_of(level))
        else:
            session = self.policy.start()
        context = CallContext(
            solver=self.solver,
            step=self.step,
            level=level,
            shared=self.shared,
            watched=watched,
            guidance=self.guidance() if len(calls.sample) == 2 else None,
        )
        return session(calls, context)

    def _session(self, calls: BatchedCall, step: int) -> Session:
        """The session of a call: a step makes several where guidance calls once a branch."""
        if self.lams is None or not torch.equal(calls.lams, self.lams):  # records of other lams say nothing of these
            self.lams, self.sessions, self.began = calls.lams, [], step
        missed = step != self.step and self.place + 1 < len(self.sessions)
        self.place = self.place + 1 if step == self.step else 0
        self.step = step
        if self.place >= len(self.sessions) and step == self.began:
            self.sessions.append((self.policy.start(), len(calls.sample)))
        if missed or self.place >= len(self.sessions) or self.sessions[self.place][1] != len(calls.sample):
            raise RealignError(
                f"guidance changed its number of branches at step {step + 1}, so what was recorded of them no longer "
                "fits; keep guidance on or off for the whole run, or take the exact mode"
            )
        return self.sessions[self.place][0]
