"""The workers as the scheduler sees them, and the loop that keeps them busy."""

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from deradiff.cluster.scheduler import GivenUp, Item, Scheduler, Ticket, Worker
from deradiff.errors import ClusterError

logger = logging.getLogger("deradiff")

_HOPELESS = 8  # parts given up, with no result at all: the error isn't theirs
_FAULTY = 3  # errors of one worker in a row
_QUICK = 2.0  # seconds a batch takes, below which a worker has the next one waiting
_LONGEST_WAIT = 5.0  # seconds between looks for new nodes and stragglers

Landed = TypeVar("Landed")


@dataclass(frozen=True)
class Finished:
    """A worker did a ticket's work."""

    ticket: Ticket[Any]
    value: Any


@dataclass(frozen=True)
class Failed:
    """The work of a ticket raised an error."""

    ticket: Ticket[Any]
    error: str


@dataclass(frozen=True)
class Lost:
    """Tickets that come to nothing, through no fault of the work; the first one may have been under way.

    Attributes:
        tickets: the oldest first.
        reason: why.
        died: whether the worker's process may have died of the first one.
    """

    tickets: Sequence[Ticket[Any]]
    reason: str
    died: bool


Event = Finished | Failed | Lost


class LostResultError(Exception):
    """What a worker made can't be fetched; it is made again."""


class Pool(Protocol):
    """Workers that come and go."""

    def clock(self) -> float:
        """The time in seconds, from any beginning."""
        ...

    def workers(self) -> Sequence[Worker]:
        """Those that can take work now."""
        ...

    def submit(self, ticket: Ticket[Any], context: Any) -> None:
        """Let the ticket's worker do its work, after what it has already."""
        ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """What happened; waits for something to happen, at most so long.

        Raises:
            ClusterError: no worker can begin.
        """
        ...

    def pause(self, worker: Worker) -> None:
        """Give a worker no work for a while, longer each time in a row."""
        ...

    def replace(self, worker: Worker) -> None:
        """End a worker's process and start another one; what it holds is lost."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass(frozen=True)
class Done(Generic[Item, Landed]):
    """Results that count.

    Attributes:
        items: that were done.
        value: what `land` made of the result.
    """

    items: list[Item]
    value: Landed


def work(
    scheduler: Scheduler[Item],
    pool: Pool,
    land: Callable[[Any, list[int]], Landed],
    context: Callable[[], Any] = lambda: None,
) -> Generator[Done[Item, Landed] | GivenUp[Item], None, None]:
    """Keep the workers busy until everything is done or given up; yields each item once.

    Args:
        scheduler: of the batches.
        pool: of the workers.
        land: makes a result safe: called with it and the indices of the items that count (none: throw it away).
        context: what a worker is told with each batch.

    Raises:
        ClusterError: no worker can begin, or nothing but errors comes of the work.
    """
    loop = _Loop(scheduler, pool, land)
    while not scheduler.is_finished:
        loop.assign(context)
        for event in pool.wait(loop.patience()):
            yield from loop.take(event)
    yield from loop.withheld


def map_unordered(
    start: Callable[[], Pool], items: Iterator[Item], tries: int, land: Callable[[Any], Landed]
) -> Iterator[Done[Item, Landed] | GivenUp[Item]]:
    """Have items done one by one on a pool, which is started with the first one; yields each once, in any order.

    Args:
        start: makes the pool.
        items: drawn as workers ask for them.
        tries: how often an item may raise an error.
        land: what becomes of a result; what it raises ends the work.

    Raises:
        ClusterError: no worker can begin, or nothing but errors comes of the work.
    """
    first = next(items, None)
    if first is None:
        return
    scheduler = Scheduler(([[item]] for item in chain([first], items)), tries)
    with closing(start()) as pool, closing(work(scheduler, pool, lambda value, fresh: land(value))) as results:
        yield from results


class _Loop(Generic[Item, Landed]):
    def __init__(self, scheduler: Scheduler[Item], pool: Pool, land: Callable[[Any, list[int]], Landed]) -> None:
        self.scheduler, self.pool, self.land, self.clock = scheduler, pool, land, pool.clock
        self.withheld = list[GivenUp[Item]]()  # until something succeeds: else all of it may be a mistake
        self._failures = Counter[Worker]()

    def assign(self, context: Callable[[], Any]) -> None:
        """Give work to workers that have none, and then a batch in advance to those that are quick."""
        usual = self.scheduler.usual_seconds
        for depth in (1, 2) if usual is not None and usual < _QUICK else (1,):
            for worker in self.pool.workers():
                if len(self.scheduler.tickets_of(worker)) < depth:
                    ticket = self.scheduler.next(worker, self.clock())
                    if ticket is not None:
                        self.pool.submit(ticket, context())

    def patience(self) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        due, usual = self.scheduler.next_moment(), self.scheduler.usual_seconds
        longest = _LONGEST_WAIT if usual is None else min(_LONGEST_WAIT, max(0.05, usual))
        left = longest if due is None else due - self.clock()
        return min(longest, left) if left > 0 else longest  # what is due already waits for a worker

    def take(self, event: Event) -> Iterator[Done[Item, Landed] | GivenUp[Item]]:
        """What comes of an event."""
        if isinstance(event, Finished):
            yield from self._finish(event)
        elif isinstance(event, Failed):
            worker = event.ticket.worker
            # what failed on another worker too is no fault of this one
            self._failures[worker] += all(part.errors == 0 for part in event.ticket.parts)
            yield from self._give_up(self.scheduler.fail(event.ticket, event.error, self.clock()))
            if self._failures[worker] >= _FAULTY:  # such as a GPU that fails at every call after a first error
                self._failures[worker] = 0
                self.pool.replace(worker)
        else:
            logger.warning("%s; what it had is done again", event.reason)
            for number, ticket in enumerate(event.tickets):
                died = event.reason if event.died and number == 0 else ""
                yield from self._give_up(self.scheduler.lose(ticket, self.clock(), died=died))

    def _finish(self, event: Finished) -> Iterator[Done[Item, Landed] | GivenUp[Item]]:
        ticket = event.ticket
        fresh = self.scheduler.fresh(ticket)
        try:
            landed = self.land(event.value, fresh)
        except LostResultError as error:
            logger.warning("%s; it is made again", error)
            self.pool.pause(ticket.worker)
            yield from self._give_up(self.scheduler.lose(ticket, self.clock()))
            return
        self._failures[ticket.worker] = 0
        self.scheduler.finish(ticket, self.clock())
        if fresh:
            items = ticket.items
            yield Done([items[index] for index in fresh], landed)
            yield from self.withheld
            self.withheld.clear()

    def _give_up(self, given_up: list[GivenUp[Item]]) -> Iterator[GivenUp[Item]]:
        if self.scheduler.succeeded:
            yield from given_up
            return
        self.withheld += given_up
        if len(self.withheld) >= _HOPELESS:
            raise ClusterError(
                f"nothing but errors came of the first {len(self.withheld)} that were tried, each "
                f"{self.withheld[-1].tries} times, so nothing more is tried; the last one: {self.withheld[-1].error}"
            )
