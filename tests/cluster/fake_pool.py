"""Simulated workers, which are slow, fail, die, fall silent and come back as a seed says; time is simulated too."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from deradiff.cluster.pool import Event, Failed, Finished, Lost
from deradiff.cluster.scheduler import Ticket, Worker
from deradiff.cluster.worker import Host, Job

Outcome = Callable[[Worker, list[Any]], str]  # of a worker and items: done, failed, died or lost


@dataclass
class FakePool:
    """Workers numbered from 0.

    ``outcome`` says what becomes of a batch, ``seconds`` how long that takes, ``result`` what comes of it.
    """

    count: int
    outcome: Outcome
    seconds: Callable[[Worker, list[Any]], float]
    result: Callable[[list[Any]], Any] = list
    now: float = 0.0
    down_until: dict[Worker, float] = field(default_factory=dict)
    running: list[tuple[float, Ticket[Any]]] = field(default_factory=list)
    tried: list[tuple[Worker, tuple[Any, ...]]] = field(default_factory=list)
    replaced: list[Worker] = field(default_factory=list)
    is_closed: bool = False

    def clock(self) -> float:
        return self.now

    def workers(self) -> Sequence[Worker]:
        return [worker for worker in range(self.count) if self.down_until.get(worker, 0) <= self.now]

    def submit(self, ticket: Ticket[Any], context: Any) -> None:
        after = max([self.now, *(end for end, other in self.running if other.worker == ticket.worker)])
        self.running.append((after + self.seconds(ticket.worker, ticket.items), ticket))

    def wait(self, seconds: float) -> Sequence[Event]:
        until = min([self.now + seconds, *(end for end, _ in self.running)])
        self.now = max(self.now + 1e-3, until)
        events = list[Event]()
        for entry in sorted((entry for entry in self.running if entry[0] <= self.now), key=lambda entry: entry[0]):
            if entry in self.running:
                events.append(self._ended(entry))
        return events

    def _ended(self, entry: tuple[float, Ticket[Any]]) -> Event:
        self.running.remove(entry)
        ticket = entry[1]
        self.tried.append((ticket.worker, tuple(ticket.items)))
        outcome = self.outcome(ticket.worker, ticket.items)
        if outcome == "done":
            return Finished(ticket, self.result(ticket.items))
        if outcome == "failed":
            return Failed(ticket, f"can't do {ticket.items}")
        if outcome == "lost":
            return Lost([ticket], "a result is lost", died=False)
        others = [other for other in self.running if other[1].worker == ticket.worker]
        self.running = [other for other in self.running if other not in others]
        self.pause(ticket.worker)
        return Lost([ticket, *(other[1] for other in others)], "a worker died", died=True)

    def pause(self, worker: Worker) -> None:
        self.down_until[worker] = self.now + random.Random(repr(self.now)).uniform(0.1, 5)

    def replace(self, worker: Worker) -> None:
        self.replaced.append(worker)

    def close(self) -> None:
        self.is_closed = True


def well(worker: Worker, items: list[Any]) -> str:
    return "done"


def disturbed() -> Outcome:
    """Of five batches one is lost with its worker, and one on its way."""
    outcomes = cycle(["died", "done", "lost", "done", "done"])
    return lambda worker, items: next(outcomes)


def pool_of(job: Job, outcome: Outcome = well) -> FakePool:
    """Three workers that do a job in this process, on what one of them has loaded."""
    host = Host(job)

    def result(items: list[Any]) -> Any:
        answer = host.do(items, None)
        assert answer.kind == "done", answer.text
        return answer.value

    return FakePool(3, outcome, lambda worker, items: 1.0, result)
