"""The scheduler on simulated workers: nothing is lost and nothing counts twice, whatever becomes of workers."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cluster.fake_pool import FakePool, Outcome

from deradiff.cluster.pool import Done, LostResultError, work
from deradiff.cluster.scheduler import GivenUp, Scheduler
from deradiff.errors import ClusterError


def in_batches(count: int, size: int) -> Iterator[list[list[int]]]:
    """Items 0, 1, ... in batches of parts of one item."""
    for start in range(0, count, size):
        yield [[item] for item in range(start, min(count, start + size))]


def take(value: list[int], fresh: list[int]) -> list[int]:
    return [value[index] for index in fresh]


def run(pool: FakePool, batches: Any, land: Any = take, tries: int = 3) -> tuple[list[int], list[GivenUp[int]]]:
    done, given_up = list[int](), list[GivenUp[int]]()
    for result in work(Scheduler(batches, tries), pool, land):
        if isinstance(result, Done):
            assert result.value == result.items
            done += result.items
        else:
            given_up.append(result)
    return done, given_up


def chances(seed: int, **of: float) -> Outcome:
    drawn = random.Random(seed)
    names = ["done", *of]
    return lambda worker, items: drawn.choices(names, [1 - sum(of.values()), *of.values()])[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    workers=st.integers(1, 6),
    count=st.integers(0, 60),
    size=st.integers(1, 7),
    bad=st.sets(st.integers(0, 59), max_size=5),
)
def test_every_item_counts_once_whatever_becomes_of_workers(
    seed: int, workers: int, count: int, size: int, bad: set[int]
) -> None:
    drawn, trouble = random.Random(seed), chances(seed, died=0.1, lost=0.1)
    pool = FakePool(
        workers,
        lambda worker, items: "failed" if bad & set(items) else trouble(worker, items),
        lambda worker, items: drawn.expovariate(1.0) * (1 + int(str(worker))),
    )
    done, given_up = run(pool, in_batches(count, size))
    bad = {item for item in bad if item < count}
    assert Counter(done) == Counter(set(range(count)) - bad)
    assert Counter(item for part in given_up for item in part.items) == Counter(bad)


def test_a_poisoned_item_is_tried_thrice_and_takes_nothing_with_it() -> None:
    pool = FakePool(2, lambda worker, items: "failed" if 5 in items else "done", lambda worker, items: 1.0)
    done, given_up = run(pool, in_batches(12, 4))
    assert sorted(done) == [item for item in range(12) if item != 5]
    (part,) = given_up
    assert (list(part.items), part.tries, part.error) == ([5], 3, "can't do [5]")
    tried = [items for _, items in pool.tried if 5 in items]
    assert tried == [(4, 5, 6, 7), (5,), (5,)]


def test_an_item_that_kills_workers_is_given_up_in_the_end() -> None:
    pool = FakePool(3, lambda worker, items: "died" if 5 in items else "done", lambda worker, items: 1.0)
    done, given_up = run(pool, in_batches(12, 4))
    assert sorted(done) == [item for item in range(12) if item != 5]
    assert [list(part.items) for part in given_up] == [[5]]
    assert "died" in given_up[0].error


def test_losses_that_are_no_fault_of_the_work_are_made_good_without_limit() -> None:
    left = Counter(dict.fromkeys(range(4), 40))

    def outcome(worker: Any, items: list[int]) -> str:
        left.subtract(items)
        return "lost" if any(left[item] >= 0 for item in items) else "done"

    done, given_up = run(FakePool(2, outcome, lambda worker, items: 1.0), in_batches(4, 2))
    assert (sorted(done), given_up) == ([0, 1, 2, 3], [])


def test_a_straggler_is_done_by_an_idle_worker_and_counts_once() -> None:
    pool = FakePool(2, lambda worker, items: "done", lambda worker, items: 1000.0 if worker == 0 else 1.0)
    done, _ = run(pool, in_batches(6, 1))
    assert sorted(done) == list(range(6))
    assert pool.now < 100


def test_a_worker_that_fails_at_everything_is_replaced_and_spoils_nothing() -> None:
    faulty = {0}
    pool = FakePool(3, lambda worker, items: "failed" if worker in faulty else "done", lambda worker, items: 1.0)
    replace = pool.replace
    pool.replace = lambda worker: (replace(worker), faulty.discard(int(str(worker))))[0]
    done, given_up = run(pool, in_batches(60, 2))
    assert (sorted(done), given_up, pool.replaced) == (list(range(60)), [], [0])


def test_items_that_fail_everywhere_replace_no_worker() -> None:
    pool = FakePool(2, lambda worker, items: "failed" if min(items) >= 20 else "done", lambda worker, items: 1.0)
    done, given_up = run(pool, in_batches(30, 10))
    assert (sorted(done), len(given_up), pool.replaced) == (list(range(20)), 10, [])


def test_nothing_is_polled_where_work_waits_for_a_worker() -> None:
    """A part that is due again, and whose only worker is down for an hour."""
    pool = FakePool(1, lambda worker, items: "failed" if len(pool.tried) == 1 else "done", lambda worker, items: 1.0)
    waits = Counter[str]()
    wait = pool.wait

    def counted(seconds: float) -> Any:
        waits["all"] += 1
        events = wait(seconds)
        if len(pool.tried) == 1 and not pool.down_until:
            pool.down_until[0] = pool.now + 3600
        return events

    pool.wait = counted
    done, _ = run(pool, in_batches(1, 1))
    assert (done, pool.now > 3600) == ([0], True)
    assert waits["all"] < 1000


def test_where_nothing_succeeds_the_work_stops_and_nothing_is_given_up() -> None:
    with pytest.raises(ClusterError, match="nothing but errors"):
        run(FakePool(2, lambda worker, items: "failed", lambda worker, items: 1.0), in_batches(100, 4))


def test_a_result_that_cannot_be_fetched_is_made_again() -> None:
    refused = Counter[int]()

    def land(value: list[int], fresh: list[int]) -> list[int]:
        refused.update(value)
        if fresh and refused[value[0]] < 3:
            raise LostResultError("the storage is away")
        return take(value, fresh)

    done, _ = run(FakePool(2, lambda worker, items: "done", lambda worker, items: 1.0), in_batches(8, 2), land)
    assert sorted(done) == list(range(8))


def test_batches_are_drawn_as_they_are_needed() -> None:
    drawn = list[int]()

    def batches() -> Iterator[list[list[int]]]:
        for item in range(1000):
            drawn.append(item)
            yield [[item]]

    results = work(Scheduler(batches()), FakePool(2, chances(0), lambda worker, items: 5.0), take)
    next(results)
    assert len(drawn) <= 6


def test_parts_of_several_items_stay_together() -> None:
    pool = FakePool(2, lambda worker, items: "failed" if 3 in items else "done", lambda worker, items: 1.0)
    done, given_up = run(pool, iter([[[0, 1], [2, 3], [4, 5]]]))
    assert (sorted(done), [list(part.items) for part in given_up]) == ([0, 1, 4, 5], [[2, 3]])
