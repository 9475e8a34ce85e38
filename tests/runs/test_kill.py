"""Runs that are really killed (SIGKILL), at moments spread over their lives, and resumed until they are done."""

import json
import random
import signal
import time
from collections.abc import Iterator
from glob import glob
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import processes
from tests.runs.small_runs import AXES, PROMPTS, assert_same, contents, finished, images, recipe_of, sweep

from deradiff.runs.merge import merge
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

KILLS = 8

Asked = list[dict[str, Any]]
WHOLE: dict[str, Any] = {"prompts": PROMPTS, "seeds": 4, "lams": [0, 0.5, 1, 2]}  # 8 blocks of 4 images
GROWING: Asked = [{**WHOLE, "lams": [0, 1]}, {"lams": [0.5, 2]}]


@pytest.fixture(autouse=True)
def _same_moments() -> None:
    random.seed(0)


@pytest.fixture
def recipe(models: tuple[str, str]) -> Recipe:
    return recipe_of(models, batch_size=4)


def start(folder: Path, recipe: Recipe, asked: Asked, shard: tuple[int, int] = (0, 1)) -> BaseProcess:
    return processes.start(sweep, folder, recipe, asked, shard)


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
    left, begun = set(glob(pattern)), set[str]()  # left by a process killed earlier
    while True:
        parts = set(glob(pattern)) - left
        begun |= parts
        yield bool(parts) and len(begun) > after


def undisturbed(folder: Path, recipe: Recipe, asked: Asked) -> tuple[float, dict[str, bytes]]:
    """How long it takes, and what it leaves."""
    began = time.perf_counter()
    process = start(folder, recipe, asked)
    process.join()
    life, left = time.perf_counter() - began, contents(folder)
    assert (process.exitcode, len(images(folder))) == (0, 32)
    return life, left


def but_scores(left: dict[str, bytes]) -> dict[str, bytes]:
    """All but the lines of scores: a run that is resumed scores the images of its second part with the first one."""
    return {name: content for name, content in left.items() if name != "rewards.jsonl"}


def test_a_run_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path, recipe: Recipe) -> None:
    """As it was asked for at once, and as it grew: the latter is killed in either part."""
    start(tmp_path / "first", recipe, [AXES]).join()  # until the server is warm
    ways = ([WHOLE], GROWING)
    ends = [undisturbed(tmp_path / f"whole{way}", recipe, asked) for way, asked in enumerate(ways)]
    assert images(tmp_path / "whole0") == images(tmp_path / "whole1")
    whole = Run(tmp_path / "whole0").results()
    assert_same(Run(tmp_path / "whole1").results(), whole)
    killed, runs = 0, 0
    while killed < KILLS or runs < len(ways):
        way, folder = runs % 2, tmp_path / f"{runs}"
        life, expected = ends[way]
        while True:
            process = start(folder, recipe, ways[way])
            wait_for(process, within(life / 2) if killed % 2 else saving(folder, random.randrange(12)))
            if not kill(process):
                break
            killed += 1
        assert but_scores(contents(folder)) == but_scores(expected)
        if way == 0:
            assert contents(folder) == expected
        assert_same(Run(folder).results(), whole)
        lines = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
        keys = [key for line in lines for key in line["keys"]]
        assert len(keys) == len(set(keys)) == 32
        runs += 1


def test_a_shard_killed_while_another_goes_on(tmp_path: Path, recipe: Recipe) -> None:
    folder = tmp_path / "parts"
    one, other = (start(folder, recipe, [WHOLE], (shard, 2)) for shard in range(2))
    wait_for(one, iter(lambda: (folder / "cells-1-of-2.jsonl").exists(), None))
    assert kill(one)
    other.join()
    assert other.exitcode == 0
    there = len(images(folder))
    assert 16 < there < 32
    assert merge([folder], tmp_path / "copy").images <= there  # what was journalled
    again = start(folder, recipe, [{}], (0, 2))
    again.join()
    assert again.exitcode == 0
    whole = finished(tmp_path / "whole", recipe, **WHOLE)
    parts = finished(folder, recipe, **WHOLE)
    assert images(folder) == images(whole.folder)
    assert_same(parts.results(), whole.results())
    assert np.isfinite(np.asarray(parts.results().path_kl)).all()
