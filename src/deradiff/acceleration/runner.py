"""Evaluating a denoiser's calls by a policy: one session for each call that a step makes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deradiff.acceleration.cells import BatchedCall, Prediction
from deradiff.acceleration.policies import CallContext, Policy, Session
from deradiff.acceleration.solver import SolverCoefficients, level_now, solver_coefficients
from deradiff.errors import RealignError


class PolicyRunner:
    """A policy at work on one denoiser.

    Args:
        policy: how calls are evaluated.
        scheduler: gives the pipeline's scheduler.
        guidance: gives its scale of classifier-free guidance where it stacks [uncond, cond].
    """

    def __init__(self, policy: Policy, scheduler: Callable[[], Any], guidance: Callable[[], float | None]) -> None:
        self.policy, self.scheduler, self.guidance = policy, scheduler, guidance
        self.on_run_start()

    def on_run_start(self) -> None:
        """A run of the pipeline begins: forget the last one."""
        self.solver: SolverCoefficients | None = None
        self.lams: Tensor | None = None
        self.sessions: list[tuple[Session, int]] = []  # with how many branches of guidance each began
        self.step, self.index, self.first_step = -1, 0, -1
        self.shared = True
        self.structure: Any = None

    def __call__(self, call: BatchedCall, *, observed: bool) -> Prediction:
        """Predict a call's mixture.

        Args:
            call: of the denoiser.
            observed: whether all models' predictions are wanted.

        Raises:
            RealignError: the call can't be run apart, and the policy needs it; or the number of branches of guidance
                changed since the run began.
        """
        if call.inseparable and self.policy.needs_solver:
            raise RealignError(f"the policy can't save NFE here: {call.inseparable}; use policy=Exact()")
        call.structure = self.structure
        prediction = self._evaluate(call, observed=observed)
        self.structure = call.structure
        return prediction

    def _evaluate(self, call: BatchedCall, *, observed: bool) -> Prediction:
        level, guidance = None, None
        if not call.inseparable and call.lams_an_image > 1:
            self.shared = self.shared and call.samples_are_equal()
        if self.policy.needs_solver:
            self.solver = self.solver or solver_coefficients(self.scheduler())
            level = level_now(self.scheduler(), call.inputs.timestep)
            guidance = self.guidance() if len(call.sample) == 2 else None
            session = self._session(call, self.solver.step_of(level))
        else:
            session = self.policy.start()
        context = CallContext(
            solver=self.solver,
            step=self.step,
            level=level,
            shared=self.shared and call.lams_an_image > 1,
            observed=observed,
            guidance=guidance,
        )
        return session(call, context)

    def _session(self, call: BatchedCall, step: int) -> Session:
        """The session of a call: a step makes several where guidance calls once a branch."""
        if self.lams is None or not torch.equal(call.lams, self.lams):  # records of other lams say nothing of these
            self.lams, self.sessions, self.first_step = call.lams, [], step
        missed = step != self.step and self.index + 1 < len(self.sessions)
        self.index = self.index + 1 if step == self.step else 0
        self.step = step
        if self.index >= len(self.sessions) and step == self.first_step:
            self.sessions.append((self.policy.start(), len(call.sample)))
        if missed or self.index >= len(self.sessions) or self.sessions[self.index][1] != len(call.sample):
            raise RealignError(
                f"guidance changed its number of branches at step {step + 1}, so the records of earlier steps no "
                "longer fit; keep guidance on or off for the whole run, or use policy=Exact()"
            )
        return self.sessions[self.index][0]
