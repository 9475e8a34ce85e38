"""Workers, nodes and drivers that are really killed, cells that fail, storage that is away: real Ray, three nodes."""

import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from tests import processes
from tests.cli.shell import here
from tests.cluster import elsewhere
from tests.runs import painted
from tests.runs.small_runs import PROMPTS, REWARD, assert_same, finished, images, journalled, quiet

from deradiff.cluster import Cluster, Interruptible
from deradiff.cluster.pool import Done, map_unordered
from deradiff.cluster.ray_pool import RayPool
from deradiff.errors import ClusterError, QuarantineError
from deradiff.runs.quarantine import read_quarantine
from deradiff.runs.recipe import Recipe
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.scoring import score

pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
CONFIG = {
    "worker_niceness": 0,  # Ray's 15 would leave workers no time on a busy machine
    "automatic_object_spilling_enabled": False,  # an object store that is full refuses
    "local_fs_capacity_threshold": 1e-4,
    "object_store_full_delay_ms": 100,
}
WHOLE: dict[str, Any] = {"prompts": PROMPTS, "seeds": 16, "lams": [0, 0.5, 1]}  # 32 blocks
WORKER_KILLS, NODE_KILLS = 7, 3


@dataclass
class Nodes:
    """A head and two nodes, each with room for a worker."""

    simulated: Any
    others: list[Any] = field(default_factory=list)

    def cluster(self, **settings: Any) -> Cluster:
        """These nodes, as a run takes them."""
        return Cluster(address=self.simulated.address, gpus_per_worker=0, **settings)

    def kill_worker(self) -> bool:
        """Kill the process of a worker, if one is there."""
        workers = [process for process in psutil.Process().children(recursive=True) if is_worker(process)]
        if workers:
            random.choice(workers).kill()
        return bool(workers)

    def kill_node(self) -> bool:
        """Kill all processes of a node, and let another one join."""
        self.simulated.remove_node(self.others.pop(random.randrange(len(self.others))), allow_graceful=False)
        self.add_node()
        return True

    def add_node(self) -> None:
        """Let a node join."""
        self.others.append(patiently(lambda: self.simulated.add_node(**NODE)))


def patiently(start: Callable[[], Any]) -> Any:
    """A node that starts; on a busy machine Ray gives up on one after half a minute."""
    for _ in range(3):
        try:
            return start()
        except Exception:  # noqa: BLE001  (what Ray raises)
            continue
    return start()


def is_worker(process: psutil.Process) -> bool:
    try:
        return any(word.startswith("ray::Host") for word in process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster as SimulatedCluster

    head = {**NODE, "include_dashboard": False, "_system_config": CONFIG}
    simulated = patiently(lambda: SimulatedCluster(initialize_head=True, head_node_args=head))
    nodes = Nodes(simulated)
    for _ in range(2):
        nodes.add_node()
    yield nodes
    simulated.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Run:
    return finished(tmp_path_factory.mktemp("whole"), recipe, **WHOLE)


def assert_as_undisturbed(run: Run, whole: Run) -> None:
    assert images(run.folder) == images(whole.folder)
    assert sorted(journalled(run)) == sorted(journalled(whole))  # none lost, none twice
    assert_same(run.results(), whole.results())


def test_workers_and_nodes_killed_at_random_lose_nothing(
    tmp_path: Path, recipe: Recipe, nodes: Nodes, whole: Run
) -> None:
    random.seed(0)
    harms = [nodes.kill_worker] * WORKER_KILLS + [nodes.kill_node] * NODE_KILLS
    random.shuffle(harms)
    blocks_until_next = 1

    def progress(count: int) -> None:
        nonlocal blocks_until_next
        blocks_until_next -= 1
        if harms and blocks_until_next <= 0:
            time.sleep(random.random() / 4)  # into the next blocks
            if harms[-1]():
                harms.pop()
            blocks_until_next = random.randint(1, 3)

    run = Run(tmp_path / "run", recipe, cluster=nodes.cluster(workers=3))
    run.sample(**WHOLE, progress=progress)
    assert harms == []
    assert_as_undisturbed(run, whole)


def test_cells_that_fail_are_quarantined_and_tried_again_when_asked(
    tmp_path: Path, recipe: Recipe, nodes: Nodes
) -> None:
    """A lam that makes NaN of every image."""
    axes: dict[str, Any] = {"prompts": PROMPTS, "seeds": 2, "lams": [0, 1, 1e30]}
    for expected_lines, again in ((4, False), (4, False), (8, True)):
        run = Run(tmp_path / "run", recipe, cluster=nodes.cluster(workers=2, retry_quarantined=again))
        with pytest.raises(QuarantineError, match="4 images could not be sampled"):
            run.sample(**axes, progress=quiet)
        entries = read_quarantine(run.store)
        assert {(entry.lam, entry.tries) for entry in entries.values()} == {(1e30, 3)}
        assert len((run.folder / "quarantine.jsonl").read_text().splitlines()) == expected_lines
    assert images(run.folder) == images(
        finished(tmp_path / "whole", recipe, prompts=PROMPTS, seeds=2, lams=[0, 1]).folder
    )


def test_the_commands_sample_and_score_on_the_cluster(
    tmp_path: Path, models: tuple[str, str], nodes: Nodes, whole: Run
) -> None:
    words = ["sweep", "--model", models[0], "--anchor", models[1], "--prompt", PROMPTS[0], "--prompt", PROMPTS[1]]
    words += ["--steps", "2", "--batch-size", "3", "--scheduler", "EulerAncestralDiscreteScheduler"]
    out, ray = str(tmp_path / "run"), ["--ray", nodes.simulated.address]
    printed = here(*words, "--lams", "0,0.5,1", "--seeds", "2", "--out", out, *ray)
    assert "12 images in" in printed.stdout
    assert images(tmp_path / "run").items() <= images(whole.folder).items()
    here("score", out, "--rewards", REWARD, *ray, "--ray-workers", "1")
    run = Run(tmp_path / "run")
    there = run.results()
    (tmp_path / "run" / "rewards.jsonl").unlink()
    run.score(REWARD, progress=quiet)
    assert_same(there, run.results())


def sample_on(address: str, folder: Path, recipe: Recipe) -> None:
    """What a driver does."""
    cluster = Cluster(address=address, workers=1, gpus_per_worker=0)
    Run(folder, recipe, cluster=cluster).sample(**WHOLE, progress=quiet)


def test_a_driver_that_is_killed_goes_on(tmp_path: Path, recipe: Recipe, nodes: Nodes, whole: Run) -> None:
    folder = tmp_path / "run"
    driver = processes.start(sample_on, nodes.simulated.address, folder, recipe)
    journal = folder / "cells.jsonl"
    while driver.is_alive() and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.01)
    driver.kill()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    before = set(journalled(Run(folder)))
    assert 0 < len(before) < len(journalled(whole))
    again = processes.start(sample_on, nodes.simulated.address, folder, recipe)
    again.join()
    assert again.exitcode == 0
    assert_as_undisturbed(Run(folder), whole)


def test_a_storage_that_refuses_for_a_while_loses_nothing(
    tmp_path: Path, recipe: Recipe, nodes: Nodes, whole: Run
) -> None:
    """At first, until workers have given up on it once, and again in the middle."""
    elsewhere.register()
    storage = tmp_path / "storage"
    storage.mkdir()

    def refuse(times: int) -> None:
        (storage / "refusing").touch()
        wanted = elsewhere.refused(storage) + times

        def wait() -> None:
            while elsewhere.refused(storage) < wanted:
                time.sleep(0.05)
            (storage / "refusing").unlink()

        threading.Thread(target=wait, daemon=True).start()

    blocks = 0

    def progress(count: int) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 16:
            refuse(4)

    refuse(8)
    cluster = nodes.cluster(
        workers=2, storage=f"refusing://{storage}", ray_options={"runtime_env": elsewhere.RUNTIME_ENV}
    )
    run = Run(tmp_path / "run", recipe, cluster=cluster)
    run.sample(**WHOLE, progress=progress)
    assert elsewhere.refused(storage) >= 12
    assert_as_undisturbed(run, whole)
    assert [path.name for path in storage.rglob("*.png")] == []


@pytest.fixture
def full(nodes: Nodes) -> Iterator[list[Any]]:
    """What fills the object store of the driver's machine as long as it is held."""
    import ray
    from ray.exceptions import OutOfDiskError

    ray.init(address=nodes.simulated.address, log_to_driver=False, logging_level=logging.ERROR)
    held = list[Any]()
    with suppress(OutOfDiskError):
        for _ in range(1000):
            held.append(ray.get(ray.put(np.zeros(1 << 20, np.uint8))))
    assert 10 < len(held) < 1000
    yield held
    ray.shutdown()


def test_work_that_an_object_store_has_no_room_for_is_sent_later(
    tmp_path: Path, nodes: Nodes, full: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Batches of images on their way to where they are scored."""
    monkeypatch.setattr(painted, "SIDE", 256)
    alone, there = painted.painted(tmp_path / "alone"), painted.painted(tmp_path / "there")

    def free_after_a_while() -> None:
        if sum("no work can be sent" in message for message in caplog.messages) >= 3:
            full.clear()

    score(there, REWARD, backend=Interruptible(nodes.cluster(workers=1), free_after_a_while))
    assert full == []
    score(alone, REWARD)
    assert_same(load_results(there), load_results(alone))


def test_results_that_an_object_store_has_no_room_for_come_later(tmp_path: Path, nodes: Nodes, full: list[Any]) -> None:
    def free_after_a_while() -> None:
        if len(list(tmp_path.iterdir())) >= 2:
            full.clear()

    def start() -> RayPool:
        return RayPool(nodes.cluster(workers=2), elsewhere.Large(tmp_path), free_after_a_while)

    results = map_unordered(start, iter(range(16)), 3, lambda value: (value[0], len(value)))
    landed = sorted(result.value for result in results if isinstance(result, Done))
    assert full == []
    assert landed == [(item, 4 << 20) for item in range(16)]


def test_workers_that_lack_the_code_are_an_error_that_says_so(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    here_alone = ModuleType("here_alone")
    exec("class Job:\n    pass", here_alone.__dict__)
    monkeypatch.setitem(sys.modules, "here_alone", here_alone)
    with pytest.raises(ClusterError, match="no worker can begin: ModuleNotFoundError: No module named 'here_alone'"):
        list(map_unordered(lambda: RayPool(nodes.cluster(workers=1), here_alone.Job()), iter([1]), 3, bool))
