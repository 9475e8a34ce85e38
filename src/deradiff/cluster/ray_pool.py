"""Workers on Ray: actors that restart when their process or their node dies; Ray itself retries no work."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from deradiff.cluster.pool import Event, Failed, Finished, Lost
from deradiff.cluster.scheduler import Ticket, Worker
from deradiff.cluster.settings import ClusterSettings
from deradiff.cluster.worker import Answer, Host, Job
from deradiff.errors import ClusterError

logger = logging.getLogger("deradiff")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a worker that failed is asked again
_LOOK_FOR_NODES = 5.0  # seconds
_SILENCE = 120.0  # seconds without a worker, after which that is said
_FETCH_SECONDS = 60.0  # for a result that is there


@dataclass(eq=False)
class _Member:
    """An actor.

    Attributes:
        number: names it.
        actor: its handle.
        loading: the answer to come of a call that loads the models.
        is_up: whether it takes work.
        pauses: in a row.
        due: when it is asked again, where it isn't up and nothing is loading.
        tickets: under way, by the answers to come, the oldest first.
    """

    number: int
    actor: Any
    loading: Any = None
    is_up: bool = False
    pauses: int = 0
    due: float = 0.0
    tickets: dict[Any, Ticket[Any]] = field(default_factory=dict)


class RayPool:
    """Workers that do one job.

    Args:
        cluster: where, and how many.
        job: which.
        check: called at every wait; what it raises ends the work.

    Raises:
        ClusterError: Ray isn't installed, or the cluster can't be reached.
    """

    def __init__(self, cluster: ClusterSettings, job: Job, check: Callable[[], object] = lambda: None) -> None:
        self.ray, self._is_ours = _connected(cluster)
        self.cluster, self.job, self.check = cluster, job, check
        self.introductions = list[Any]()  # by workers that began, since this was last looked at
        self._members = dict[int, _Member]()
        self._number, self._looked = 0, -_LOOK_FOR_NODES
        self._has_begun, self._since = False, time.monotonic()
        self._early = list[Event]()
        self._unusable = dict[int, str]()
        gpus = cluster.gpus_per_worker
        self._gpus = gpus if gpus is not None else float(self._resources().get("GPU", 0) > 0)
        self._host = self.ray.remote(
            num_gpus=self._gpus, num_cpus=cluster.cpus_per_worker, max_restarts=-1, max_task_retries=0
        )(Host)

    def clock(self) -> float:
        """The time in seconds, from any beginning."""
        return time.monotonic()

    def workers(self) -> Sequence[Worker]:
        """Those that can take work now."""
        return [member.number for member in self._members.values() if member.is_up]

    def submit(self, ticket: Ticket[Any], context: Any) -> None:
        """Let the ticket's worker do its work, after what it has already."""
        member = self._members[int(str(ticket.worker))]
        try:
            ref = member.actor.do.remote(ticket.items, context)
        except self.ray.exceptions.RayError as error:  # such as a full object store, where the work is large
            self._early.append(Lost([ticket], f"no work can be sent ({type(error).__name__})", died=False))
            self.pause(member.number)
            return
        member.tickets[ref] = ticket

    def wait(self, seconds: float) -> Sequence[Event]:
        """What happened; waits for something to happen, at most so long.

        Raises:
            ClusterError: no worker can begin.
        """
        self.check()
        self._look_for_nodes()
        self._load_again()
        early, self._early = self._early, []
        by_ref = {ref: member for member in self._members.values() for ref in self._refs(member)}
        seconds = 0.0 if early else min([seconds, *self._pauses_left()])
        if not by_ref:
            time.sleep(min(seconds, _SHORTEST_PAUSE))
            return early
        ready, _ = self.ray.wait(list(by_ref), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self.ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0)
        return [*early, *(event for ref in ready for event in self._taken(by_ref[ref], ref))]

    def pause(self, worker: Worker) -> None:
        """Give a worker no work for a while, longer each time in a row."""
        member = self._members[int(str(worker))]
        member.is_up, member.loading = False, None
        member.due = time.monotonic() + min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**member.pauses)
        member.pauses += 1

    def replace(self, worker: Worker) -> None:
        """End a worker's process and start another one; what it holds is lost."""
        member = self._members[int(str(worker))]
        self.ray.kill(member.actor, no_restart=True)
        self._early += self._lost(member, f"worker {member.number} is replaced: too many errors in a row", died=False)
        member.actor = self._new_actor()

    def forget(self) -> None:
        """Let go of all work under way: its results won't be asked for."""
        self._early.clear()
        for member in self._members.values():
            member.tickets.clear()

    def close(self) -> None:
        """End all workers, and the cluster where it was begun for this."""
        for member in self._members.values():
            self.ray.kill(member.actor, no_restart=True)
        self._members.clear()
        if self._is_ours:
            self.ray.shutdown()

    def _refs(self, member: _Member) -> list[Any]:
        return [*member.tickets, *([] if member.loading is None else [member.loading])]

    def _taken(self, member: _Member, ref: Any) -> list[Event]:
        """What an answer means; of a lost worker, all that it had is lost."""
        if ref not in self._refs(member):  # lost with another answer
            return []
        try:
            answer: Answer = self.ray.get(ref, timeout=_FETCH_SECONDS)
        except self.ray.exceptions.RayError as error:
            return self._broken(member, ref, error)
        if ref == member.loading:
            return self._loaded(member, answer)
        if answer.kind == "unusable":  # its process is a new one, perhaps on another machine
            return self._cannot_begin(member, answer.text)
        ticket = member.tickets.pop(ref)
        if answer.kind == "storage":
            self.pause(member.number)
            return [Lost([ticket], f"worker {member.number} can't write images ({answer.text})", died=False)]
        if answer.kind == "done":
            member.pauses = 0
            return [Finished(ticket, answer.value)]
        return [Failed(ticket, answer.text)]

    def _loaded(self, member: _Member, answer: Answer) -> list[Event]:
        member.loading = None
        if answer.kind == "done":
            member.is_up = self._has_begun = True
            self._unusable.pop(member.number, None)
            self.introductions.append(answer.value)
            return []
        return self._cannot_begin(member, answer.text)

    def _cannot_begin(self, member: _Member, reason: str) -> list[Event]:
        """A worker can do nothing where it runs now; others may."""
        if member.number not in self._unusable:
            logger.warning("worker %d can't begin: %s", member.number, reason)
        self._unusable[member.number] = reason
        if len(self._unusable) == len(self._members):
            raise ClusterError(f"no worker can begin: {reason}")
        return self._lost(member, f"worker {member.number} can't begin", died=False)

    def _broken(self, member: _Member, ref: Any, error: Exception) -> list[Event]:
        exceptions = self.ray.exceptions
        reason = f"worker {member.number} is lost ({type(error).__name__})"
        cause = getattr(error, "cause", None)  # of a RayTaskError: what was raised on the worker
        if isinstance(error, exceptions.RayTaskError) and not isinstance(cause, exceptions.RayError):
            return [Failed(member.tickets.pop(ref), str(cause or error))] if ref in member.tickets else []
        if not isinstance(error, (exceptions.RayActorError, exceptions.WorkerCrashedError)) and ref in member.tickets:
            lost = Lost([member.tickets.pop(ref)], f"a result of {reason}", died=False)
            self.pause(member.number)
            return [lost]
        if isinstance(error, exceptions.ActorDiedError) and ref == member.loading:  # for good
            member.actor = self._new_actor()
            if "creation task" in str(error):  # such as where this package isn't installed
                return self._cannot_begin(member, str(error).strip().splitlines()[-1])
        return self._lost(member, reason, died=True)

    def _lost(self, member: _Member, reason: str, *, died: bool) -> list[Event]:
        tickets = list(member.tickets.values())
        member.tickets.clear()
        self.pause(member.number)
        return [Lost(tickets, reason, died)] if tickets else []

    def _load_again(self) -> None:
        for member in self._paused():
            if time.monotonic() >= member.due:
                member.loading = member.actor.load.remote()

    def _pauses_left(self) -> list[float]:
        return [max(0.0, member.due - time.monotonic()) for member in self._paused()]

    def _paused(self) -> list[_Member]:
        return [member for member in self._members.values() if not member.is_up and member.loading is None]

    def _look_for_nodes(self) -> None:
        """Have as many workers as there is room for, or as were asked for."""
        if time.monotonic() < self._looked + _LOOK_FOR_NODES:
            return
        self._looked = time.monotonic()
        if not self._has_begun and self._looked > self._since + _SILENCE:
            logger.warning(
                "no worker has begun yet; each needs %g CPUs and %g GPUs, and the cluster has %s",
                *(self.cluster.cpus_per_worker, self._gpus, self._resources()),
            )
            self._since = self._looked
        while len(self._members) < self._room():
            self._members[self._number] = _Member(self._number, self._new_actor())
            self._number += 1

    def _room(self) -> int:
        if self.cluster.workers is not None:
            return self.cluster.workers
        kind, share = ("GPU", self._gpus) if self._gpus else ("CPU", self.cluster.cpus_per_worker)
        return max(1, int(self._resources().get(kind, 0) / share)) if share else 1

    def _resources(self) -> dict[str, float]:
        return self.ray.cluster_resources()

    def _new_actor(self) -> Any:
        return self._host.remote(self.job)


@contextmanager
def _keeping_signals() -> Generator[None]:
    """Leave SIGTERM to whom it belongs: Ray would take it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _connected(cluster: ClusterSettings) -> tuple[Any, bool]:
    """Ray, connected to the cluster, and whether it is for us to end that connection."""
    try:
        import ray
    except ImportError as error:
        raise ClusterError("a cluster needs Ray, which isn't installed: pip install 'deradiff[ray]'") from error
    if ray.is_initialized():
        return ray, False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, **cluster.ray_options}
    try:
        with _keeping_signals():
            ray.init(address=cluster.address, **options)
    except Exception as error:  # Ray raises errors of many kinds here, bare ones too
        where = "a cluster on this machine" if cluster.address is None else f"the cluster at {cluster.address}"
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(f"Ray can't reach or start {where} ({reason}); check the address") from error
    return ray, True
