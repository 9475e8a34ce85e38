"""One small run on one small cluster; `test_disasters` has the large ones."""

from pathlib import Path

import pytest
from tests.runs.small_runs import AXES, REWARD, assert_same, finished, images, journalled, quiet

from deradiff.cluster import Cluster
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

pytestmark = pytest.mark.cluster

SMALL = {
    "num_cpus": 1,
    "object_store_memory": 80 << 20,
    "include_dashboard": False,
    "_system_config": {"worker_niceness": 0},  # Ray's 15 would leave workers no time on a busy machine
}


def test_a_run_on_a_cluster_is_that_of_one_process_to_the_byte(tmp_path: Path, recipe: Recipe) -> None:
    whole = finished(tmp_path / "whole", recipe)
    cluster = Cluster(address="local", workers=1, gpus_per_worker=0, cpus_per_worker=0.5, ray_options=SMALL)
    run = Run(tmp_path / "spread", recipe, cluster=cluster)
    run.sample(**AXES, progress=quiet)
    assert images(run.folder) == images(whole.folder)
    assert sorted(journalled(run)) == sorted(journalled(whole))
    assert_same(run.results(), whole.results())
    assert run.is_complete()
    for one in (whole, run):
        one.score(REWARD, progress=quiet)
    assert_same(run.results(), whole.results())
