"""Workers, nodes and drivers that are really killed (SIGKILL), cells that can't be sampled: real Ray, three nodes."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests import processes
from tests.runs.small_runs import PROMPTS, assert_same, finished, images, journalled, quiet

from deradiff.cli.commands import run as run_command
from deradiff.cluster import Cluster
from deradiff.errors import QuarantineError
from deradiff.runs.quarantine import read_quarantine
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
WHOLE: dict[str, Any] = {"prompts": PROMPTS, "seeds": 16, "lams": [0, 0.5, 1]}  # 32 blocks
WORKER_KILLS, NODE_KILLS = 8, 4


@dataclass
class Nodes:
    """A head and two nodes, each with room for a worker."""

    cluster: Any
    others: list[Any] = field(default_factory=list)

    def kill_worker(self) -> bool:
        """Kill the process of a worker, if one is there."""
        workers = [process for process in psutil.Process().children(recursive=True) if is_worker(process)]
        if workers:
            random.choice(workers).kill()
        return bool(workers)

    def kill_node(self) -> bool:
        """Kill all processes of a node, and let another one join."""
        self.cluster.remove_node(self.others.pop(random.randrange(len(self.others))), allow_graceful=False)
        self.add_node()
        return True

    def add_node(self) -> None:
        """Let a node join."""
        self.others.append(patiently(lambda: self.cluster.add_node(**NODE)))


def patiently(start: Callable[[], Any]) -> Any:
    """A node that starts; on a busy machine Ray gives up on one after half a minute."""
    for _ in range(4):
        try:
            return start()
        except Exception:  # noqa: BLE001  (what Ray raises)
            continue
    pytest.skip("this machine is too busy for a node of Ray to start")


def is_worker(process: psutil.Process) -> bool:
    try:
        return any(word.startswith("ray::Host") for word in process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    import ray
    from ray.cluster_utils import Cluster as SimulatedCluster

    head = {**NODE, "include_dashboard": False}
    cluster = patiently(lambda: SimulatedCluster(initialize_head=True, head_node_args=head))
    nodes = Nodes(cluster)
    for _ in range(2):
        nodes.add_node()
    ray.init(address=cluster.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Run:
    return finished(tmp_path_factory.mktemp("whole"), recipe, **WHOLE)


def assert_as_undisturbed(run: Run, whole: Run) -> None:
    assert images(run.folder) == images(whole.folder)
    assert sorted(journalled(run)) == sorted(journalled(whole))  # none lost, none twice
    assert_same(run.results(), whole.results())


def disturbed(folder: Path, recipe: Recipe, harm: Callable[[], bool], times: int, **settings: Any) -> Run:
    """A run that is harmed at random moments, so often."""
    run = Run(folder, recipe, cluster=Cluster(workers=3, gpus_per_worker=0, **settings))
    left, until = times, 1

    def progress(count: int) -> None:
        nonlocal left, until
        until -= 1
        if left and until <= 0:
            time.sleep(random.random() / 4)  # into the next blocks
            left -= harm()
            until = random.randint(1, 3)

    run.sample(**WHOLE, progress=progress)
    assert left == 0
    return run


def test_workers_killed_at_random_lose_nothing(tmp_path: Path, recipe: Recipe, nodes: Nodes, whole: Run) -> None:
    random.seed(0)
    assert_as_undisturbed(disturbed(tmp_path / "run", recipe, nodes.kill_worker, WORKER_KILLS), whole)


def test_nodes_killed_at_random_lose_nothing(tmp_path: Path, recipe: Recipe, nodes: Nodes, whole: Run) -> None:
    random.seed(1)
    assert_as_undisturbed(disturbed(tmp_path / "run", recipe, nodes.kill_node, NODE_KILLS), whole)


def test_cells_that_fail_are_quarantined_and_tried_again_when_asked(
    tmp_path: Path, recipe: Recipe, nodes: Nodes
) -> None:
    """A lam that makes NaN of every image."""
    axes: dict[str, Any] = {"prompts": PROMPTS, "seeds": 2, "lams": [0, 1, 1e30]}
    cluster = Cluster(workers=2, gpus_per_worker=0)
    run = Run(tmp_path / "run", recipe, cluster=cluster)
    for expected_lines in (4, 4, 8):
        if expected_lines == 8:
            run = Run(tmp_path / "run", recipe, cluster=cluster.model_copy(update={"retry_quarantined": True}))
        with pytest.raises(QuarantineError, match="4 images could not be sampled"):
            run.sample(**axes, progress=quiet)
        entries = read_quarantine(run.store)
        assert {(entry.lam, entry.tries) for entry in entries.values()} == {(1e30, 3)}
        assert len((run.folder / "quarantine.jsonl").read_text().splitlines()) == expected_lines
    assert images(run.folder) == images(
        finished(tmp_path / "whole", recipe, prompts=PROMPTS, seeds=2, lams=[0, 1]).folder
    )


def test_the_command_samples_on_the_cluster(
    tmp_path: Path, models: tuple[str, str], nodes: Nodes, whole: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "--model", models[0], "--anchor", models[1], "--prompt", PROMPTS[0], "--prompt", PROMPTS[1]]
    words += ["--steps", "2", "--batch-size", "3", "--scheduler", "EulerAncestralDiscreteScheduler"]
    run_command([*words, "--lams", "0,0.5,1", "--seeds", "2", "--out", str(tmp_path / "run"), "--ray"])
    assert "12 images in" in capsys.readouterr().out
    assert images(tmp_path / "run").items() <= images(whole.folder).items()


def sample_alone(folder: Path, recipe: Recipe) -> None:
    """What a driver does that starts a cluster of its own."""
    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(address="local", workers=1, gpus_per_worker=0, ray_options=small)
    Run(folder, recipe, cluster=cluster).sample(**WHOLE, progress=quiet)


def test_a_driver_that_is_killed_goes_on(tmp_path: Path, recipe: Recipe, whole: Run) -> None:
    folder = tmp_path / "run"
    driver = processes.start(sample_alone, folder, recipe)
    journal = folder / "cells.jsonl"
    while driver.is_alive() and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.01)
    driver.kill()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    before = set(journalled(Run(folder)))
    assert 0 < len(before) < len(journalled(whole))
    again = processes.start(sample_alone, folder, recipe)
    again.join()
    assert again.exitcode == 0
    assert_as_undisturbed(Run(folder), whole)
