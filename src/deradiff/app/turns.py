"""One pipeline for many: who may call it, how far a call is, and how it is stopped."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count

_POLL = 0.1  # seconds between looks at whether a waiting job was stopped


class Stopped(Exception):  # noqa: N818  (no error: somebody wanted it)
    """A job that was stopped on request."""


class Job:
    """One piece of work: its progress, and whether it was stopped. Threads share it.

    Attributes:
        done: steps that are done.
        total: steps in all; 0 where it hasn't begun.
        ahead: jobs that come before it.
    """

    def __init__(self) -> None:
        self.done, self.total, self.ahead = 0, 0, 0
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let it end at its next step."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise Stopped where it was stopped."""
        if self.is_stopped:
            raise Stopped


class Turns:
    """Lets one thread in at a time: people before sweeps, else in the order of arrival. A thread may enter again."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[tuple[bool, int]] = []
        self._numbers = count()
        self._owner: int | None = None

    @contextmanager
    def taken(self, job: Job, *, in_background: bool = False) -> Generator[None]:
        """Inside the block nobody else is in.

        Raises:
            Stopped: the job was stopped while it waited.
        """
        if self._owner == threading.get_ident():
            yield
            return
        self._enter(job, (in_background, next(self._numbers)))
        try:
            yield
        finally:
            with self._condition:
                self._owner = None
                self._condition.notify_all()

    def _enter(self, job: Job, ticket: tuple[bool, int]) -> None:
        with self._condition:
            self._waiting.append(ticket)
            try:
                while self._owner is not None or min(self._waiting) != ticket:
                    earlier = sum(other < ticket for other in self._waiting)
                    job.ahead = earlier + (self._owner is not None)
                    job.check()
                    self._condition.wait(_POLL)
                job.check()
                job.ahead, self._owner = 0, threading.get_ident()
            finally:
                self._waiting.remove(ticket)
                self._condition.notify_all()


class Sessions:
    """The job of each visitor: a new one stops the one before."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    @contextmanager
    def job_of(self, session: str) -> Generator[Job]:
        """A new job of a visitor, which stops the one before; it ends with the block, also where the visitor leaves."""
        job = Job()
        with self._lock:
            before, self._jobs[session] = self._jobs.get(session), job
        if before is not None:
            before.stop()
        try:
            yield job
        finally:
            job.stop()
            with self._lock:
                if self._jobs.get(session) is job:
                    del self._jobs[session]

    def is_current(self, session: str, job: Job) -> bool:
        """Whether a job is the visitor's newest."""
        return self._jobs.get(session) is job

    def stop(self, session: str) -> None:
        """Stop a visitor's job, if there is one."""
        with self._lock:
            job = self._jobs.get(session)
        if job is not None:
            job.stop()

    def stop_all(self) -> None:
        """Stop every job."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop()
