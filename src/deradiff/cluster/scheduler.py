"""Which worker does what: a queue of batches in which nothing is lost and no result counts twice.

Work is done at least once, and results count exactly once. A batch consists of parts, the smallest pieces whose results
don't depend on what they are done with. Several workers may hold copies of a part: the first result wins, and what
comes later is dropped. Nothing here knows what a part is, what a worker is, or what time it is.
"""

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

Item = TypeVar("Item")
Worker = Hashable

_LONGEST_PAUSE = 60.0  # seconds before a part that failed is tried again
_STRAGGLES = 3.0  # times what a batch usually takes
_DEATHS_TO_SPLIT, _DEATHS_TO_GIVE_UP = 2, 8  # of workers that ran a part


@dataclass(eq=False)
class Part(Generic[Item]):
    """The smallest piece of a batch that can be done by itself.

    Attributes:
        items: what is to be done.
        is_done: there is a result, or it was given up.
        errors: how often doing it raised an error.
        deaths: how often a worker's process died while doing it.
        failed_on: the worker that it failed on last.
    """

    items: Sequence[Item]
    is_done: bool = False
    errors: int = 0
    deaths: int = 0
    failed_on: Worker | None = None


@dataclass(eq=False)
class Ticket(Generic[Item]):
    """Some parts, handed to a worker.

    Attributes:
        worker: that holds it.
        parts: in order.
        since: when it was handed out.
        is_copy: whether another worker holds the parts too.
    """

    worker: Worker
    parts: list[Part[Item]]
    since: float
    is_copy: bool = False

    @property
    def items(self) -> list[Item]:
        """Everything in it, in order."""
        return [item for part in self.parts for item in part.items]


@dataclass(frozen=True)
class GivenUp(Generic[Item]):
    """A part that was tried often enough.

    Attributes:
        items: of the part.
        error: the last one.
        tries: how often it was tried.
    """

    items: Sequence[Item]
    error: str
    tries: int


@dataclass
class Scheduler(Generic[Item]):
    """Hands out batches, and takes what became of them.

    Args:
        batches: drawn one by one as workers ask; each a list of parts, each part a sequence of items.
        tries: how often a part may raise an error.

    Attributes:
        succeeded: items with a result.
        given_up: items without one, which were tried often enough.
    """

    batches: Iterable[Sequence[Sequence[Item]]]
    tries: int = 3
    succeeded: int = 0
    given_up: int = 0
    _held: list[Ticket[Item]] = field(default_factory=list)
    _ready: deque[list[Part[Item]]] = field(default_factory=deque)
    _paused: list[tuple[float, int, list[Part[Item]]]] = field(default_factory=list)
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _number: int = 0

    def __post_init__(self) -> None:
        self._source: Iterator[Sequence[Sequence[Item]]] = iter(self.batches)
        self._is_drained = False

    def next(self, worker: Worker, now: float) -> Ticket[Item] | None:
        """What a worker does next; None where there is nothing for it at present."""
        parts = self._next_parts(worker, now)
        if parts is not None:
            return self._hand_out(worker, parts, now)
        late = self._straggler(worker, now)
        if late is None:
            return None
        late.is_copy = True
        ticket = self._hand_out(worker, _open(late.parts), now)
        ticket.is_copy = True
        return ticket

    def fresh(self, ticket: Ticket[Item]) -> list[int]:
        """The indices of a ticket's items that have no result yet, and for which one would count."""
        fresh, index = list[int](), 0
        for part in ticket.parts:
            if not part.is_done:
                fresh.extend(range(index, index + len(part.items)))
            index += len(part.items)
        return fresh

    def finish(self, ticket: Ticket[Item], now: float) -> None:
        """There is a result of a ticket, and it is safe."""
        self._held.remove(ticket)
        self._durations.append(now - ticket.since)
        self.succeeded += len(self.fresh(ticket))
        for part in ticket.parts:
            part.is_done = True

    def fail(self, ticket: Ticket[Item], error: str, now: float) -> list[GivenUp[Item]]:
        """The work itself raised an error: each part is tried by itself, until it was tried often enough."""
        self._held.remove(ticket)
        for part in _open(ticket.parts):
            part.errors += 1
            part.failed_on = ticket.worker
        return self._retry_singly(ticket, error, now)

    def lose(self, ticket: Ticket[Item], now: float, *, died: str = "") -> list[GivenUp[Item]]:
        """A worker or what it made is gone, through no fault of the work: it is done again, without limit.

        Args:
            ticket: that it held.
            now: the time.
            died: how its process died while it did this work; empty where the work may not even have begun. Parts
                that many workers died of are given up, or they would kill workers for ever.
        """
        self._held.remove(ticket)
        parts = _open(ticket.parts)
        for part in parts if died else ():
            part.deaths += 1
        if any(part.deaths >= _DEATHS_TO_SPLIT for part in parts):
            return self._retry_singly(ticket, f"the worker died: {died}", now)
        if parts:
            self._ready.appendleft(parts)
        return []

    def tickets_of(self, worker: Worker) -> list[Ticket[Item]]:
        """What a worker holds, the oldest first."""
        return [ticket for ticket in self._held if ticket.worker == worker]

    @property
    def is_finished(self) -> bool:
        """Whether every part has a result or was given up; copies may still be under way."""
        if self._ready or self._paused or any(_open(ticket.parts) for ticket in self._held):
            return False
        parts = self._draw()
        if parts is not None:
            self._ready.append(parts)
        return parts is None

    @property
    def usual_seconds(self) -> float | None:
        """What a batch takes; None before there is a result."""
        return median(self._durations) if self._durations else None

    def next_moment(self) -> float | None:
        """When the next paused part is due; None where none is paused."""
        return self._paused[0][0] if self._paused else None

    def _hand_out(self, worker: Worker, parts: list[Part[Item]], now: float) -> Ticket[Item]:
        ticket = Ticket(worker, parts, now)
        self._held.append(ticket)
        return ticket

    def _next_parts(self, worker: Worker, now: float) -> list[Part[Item]] | None:
        while self._paused and self._paused[0][0] <= now:
            self._ready.append(heapq.heappop(self._paused)[2])
        others = {ticket.worker for ticket in self._held} - {worker}
        for _ in range(len(self._ready)):
            parts = _open(self._ready.popleft())
            if parts and parts[0].failed_on == worker and others:  # another worker may do what this one can't
                self._ready.append(parts)
            elif parts:
                return parts
        parts = self._draw()
        if parts is None and self._ready and not self.tickets_of(worker):
            parts = self._ready.popleft()
        return parts

    def _draw(self) -> list[Part[Item]] | None:
        if self._is_drained:
            return None
        batch = next(self._source, None)
        self._is_drained = batch is None
        return None if batch is None else [Part(items) for items in batch]

    def _straggler(self, worker: Worker, now: float) -> Ticket[Item] | None:
        """The oldest ticket of another worker that takes much longer than usual, and that no one else does too."""
        usual = self.usual_seconds
        if usual is None or self.tickets_of(worker):
            return None
        late = [ticket for ticket in self._held if not ticket.is_copy and ticket.worker != worker]
        late = [ticket for ticket in late if now - ticket.since > _STRAGGLES * usual and _open(ticket.parts)]
        return min(late, key=lambda ticket: ticket.since, default=None)

    def _retry_singly(self, ticket: Ticket[Item], error: str, now: float) -> list[GivenUp[Item]]:
        given_up = list[GivenUp[Item]]()
        for part in _open(ticket.parts):
            tries = part.errors + part.deaths
            if part.errors >= self.tries or part.deaths >= _DEATHS_TO_GIVE_UP:
                part.is_done = True
                given_up.append(GivenUp(part.items, error, tries))
            else:
                self._number += 1
                pause = 0.0 if len(ticket.parts) > 1 else min(_LONGEST_PAUSE, 0.25 * 2**tries)
                heapq.heappush(self._paused, (now + pause, self._number, [part]))
        self.given_up += sum(len(part.items) for part in given_up)
        return given_up


def _open(parts: Iterable[Part[Item]]) -> list[Part[Item]]:
    return [part for part in parts if not part.is_done]
