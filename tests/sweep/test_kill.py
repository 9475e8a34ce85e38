"""Sweeps that are really killed (SIGKILL), at moments spread over their lives, and resumed until they are done.

The processes are forked from a server that has imported everything, so that one starts in milliseconds.
"""

import multiprocessing
import random
import signal
import time
from collections.abc import Iterator
from glob import glob
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from tests.sweep.subject import contents, finished, make_plan, sweep

from deradiff.sweep import Plan

KILLS = 24
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.sweep.warm"])


@pytest.fixture
def plan(folders: tuple[str, str]) -> Plan:
    return make_plan(folders, seeds=range(5), lams=[0, 0.5, 1, 2], batch_size=4)  # 10 batches of 4 images


def start(folder: Path, plan: Plan, shard: tuple[int, int] = (0, 1)) -> BaseProcess:
    process = FORKING.Process(target=sweep, args=(folder, plan, shard))
    process.start()
    return process


def kill(process: BaseProcess) -> bool:
    """Whether it was still alive to be killed."""
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def wait_for(process: BaseProcess, happening: Iterator[bool]) -> None:
    """Until it happens, or the process ends before it does."""
    while process.is_alive() and not next(happening):
        time.sleep(0.0003)  # leaves the core to the process


def within(seconds: float) -> Iterator[bool]:
    """At some moment."""
    moment = time.perf_counter() + seconds * random.random()
    while True:
        yield time.perf_counter() >= moment


def saving(folder: Path, after: int) -> Iterator[bool]:
    """While a file is half written, when some others have been."""
    pattern = f"{folder}/.*.parts/*"
    left, seen = set(glob(pattern)), set[str]()  # left by a process killed earlier
    while True:
        parts = set(glob(pattern)) - left
        seen |= parts
        yield bool(parts) and len(seen) > after


def test_a_sweep_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path, plan: Plan) -> None:
    start(tmp_path / "first", plan).join()  # until the server is warm
    began = time.perf_counter()
    whole = start(tmp_path / "whole", plan)
    whole.join()
    life, expected = time.perf_counter() - began, contents(tmp_path / "whole")
    assert (whole.exitcode, len(expected)) == (0, 40 + 5)
    killed, runs = 0, 0
    while killed < KILLS:
        folder = tmp_path / f"{runs}"
        while True:
            process = start(folder, plan)
            wait_for(process, within(life / 2) if killed % 2 else saving(folder, random.randrange(12)))
            if not kill(process):
                break
            killed += 1
        assert contents(folder) == expected
        runs += 1


def test_a_shard_killed_while_another_goes_on(tmp_path: Path, plan: Plan) -> None:
    folder = tmp_path / "parts"
    one, other = (start(folder, plan, (shard, 2)) for shard in range(2))
    wait_for(one, iter(lambda: (folder / "journal-0-of-2.jsonl").exists(), None))
    assert kill(one)
    other.join()
    assert other.exitcode == 0
    lacking = len(list((folder / "images").rglob("*.png")))
    assert 20 < lacking < 40
    again = start(folder, plan, (0, 2))
    again.join()
    assert again.exitcode == 0
    whole, parts = finished(tmp_path / "whole", plan), finished(folder, plan)
    assert contents(folder / "images") == contents(tmp_path / "whole" / "images")
    assert np.array_equal(parts.results().path_kl, whole.results().path_kl)  # pyright: ignore[reportArgumentType]
