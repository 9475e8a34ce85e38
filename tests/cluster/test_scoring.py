"""Scoring on simulated workers: whatever becomes of them, the table is that of one process, bit for bit."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.fake_pool import FakePool, Outcome, disturbed, pool_of, well
from tests.rewards.counting import Counting
from tests.runs.painted import painted
from tests.runs.small_runs import LENGTH, REWARD, assert_same
from torch import Tensor

from deradiff.cluster.scorer import score_on
from deradiff.cluster.scoring_job import ScoringJob
from deradiff.cluster.worker import Host
from deradiff.errors import ClusterError, PartialScoresError, RewardError, RewardUnavailableError
from deradiff.runs.batch_scores import BatchScorer
from deradiff.runs.results import load_results
from deradiff.runs.scoring import score
from deradiff.runs.store import Store

COUNTING = f"{Counting.__module__}:Counting"


def choosy(pixels: Tensor, prompts: list[str]) -> Tensor:
    if "two" in prompts:
        raise KeyError("two")
    return pixels.mean((1, 2, 3))


def silent(pixels: Tensor, prompts: list[str]) -> Tensor:
    raise RewardUnavailableError("no answer")


CHOOSY, SILENT = f"{__name__}:choosy", f"{__name__}:silent"


class Simulated:
    """A cluster of three simulated workers in this process, as a run takes it."""

    def __init__(self, outcome: Outcome = well) -> None:
        self.outcome, self.pools = outcome, list[FakePool]()

    @contextmanager
    def scorer(self, reward: str, *, device: str, dtype: Any) -> Iterator[BatchScorer]:
        yield lambda batches: score_on(lambda: self._pool(ScoringJob.of(reward, "cpu", dtype)), batches, tries=3)

    def sampler(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("scoring samples nothing")

    def _pool(self, job: ScoringJob) -> FakePool:
        self.pools.append(pool_of(job, self.outcome))
        return self.pools[-1]


def assert_scored_once(store: Store) -> None:
    lines = Counter((record.reward, key) for record in store.scores() for key in record.keys)
    assert set(lines.values()) == {1}


@pytest.mark.parametrize("reward", [REWARD, LENGTH, "diversity", "reference_distance", "saturation"])
def test_scores_are_those_of_one_process_whatever_becomes_of_workers(tmp_path: Path, reward: str) -> None:
    here, there = painted(tmp_path / "here"), painted(tmp_path / "there")
    counted = list[int]()
    score(here, reward)
    cluster = Simulated(disturbed())
    score(there, reward, counted.append, backend=cluster)
    assert_same(load_results(there), load_results(here))
    assert_scored_once(there)
    assert sum(counted) == 36
    (pool,) = cluster.pools
    tried = [items for _, items in pool.tried]
    assert len(tried) > len(set(tried))  # some work was lost, and done again
    assert pool.is_closed


def test_a_reward_that_fails_on_an_image_spoils_no_other(tmp_path: Path) -> None:
    here, there = painted(tmp_path / "here"), painted(tmp_path / "there")
    messages = list[str]()
    for store, backend in ((here, None), (there, Simulated(disturbed()))):
        with pytest.raises(PartialScoresError) as caught:
            score(store, CHOOSY, backend=backend)
        assert caught.value.prompts == {"two"}
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert_same(load_results(there), load_results(here))
    assert_scored_once(there)


def test_images_that_no_worker_survives_are_failures_and_the_others_are_scored(tmp_path: Path) -> None:
    store = painted(tmp_path)
    deadly = Simulated(lambda worker, items: "died" if items[0].images[0].cell.prompt == "two" else "done")
    with pytest.raises(PartialScoresError, match="the worker died"):
        score(store, REWARD, backend=deadly)
    assert 0 < sum(value is None for record in store.scores() for value in record.scores) < 36
    score(store, REWARD)
    assert load_results(store).unscored == {}


def test_a_group_that_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="can't do"):
        score(painted(tmp_path, lams=[0]), "diversity", backend=Simulated(lambda worker, items: "failed"))


def test_where_nothing_but_errors_comes_of_it_scoring_stops(tmp_path: Path) -> None:
    store = painted(tmp_path, seeds=range(10))
    with pytest.raises(ClusterError, match="nothing but errors came of the first 8"):
        score(store, REWARD, backend=Simulated(lambda worker, items: "failed"))
    assert list(store.scores()) == []


def test_a_reward_that_is_unavailable_ends_it(tmp_path: Path) -> None:
    cluster = Simulated()
    with pytest.raises(RewardUnavailableError, match="no answer"):
        score(painted(tmp_path), SILENT, backend=cluster)
    assert cluster.pools[0].is_closed


def test_the_driver_alone_reads_and_writes_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "asked", [])
    cluster = Simulated()
    for name in ("first", "second"):
        score(painted(tmp_path / name), COUNTING, backend=cluster)
    assert (len(Counting.asked), len(cluster.pools)) == (36, 1)  # where all is known, no worker starts


def test_where_all_is_scored_no_worker_starts(tmp_path: Path) -> None:
    store, cluster = painted(tmp_path), Simulated()
    score(store, REWARD)
    score(store, REWARD, backend=cluster)
    assert cluster.pools == []


def test_a_reward_of_the_working_folder_is_imported_on_workers_that_see_it_and_refused_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_mine.py").write_text("def redness(pixels, prompts):\n    return pixels[:, 0].mean((1, 2))\n")
    assert Host(ScoringJob("of_mine:redness", str(tmp_path), "cpu", "float32")).load().kind == "done"
    monkeypatch.delitem(sys.modules, "of_mine")
    answer = Host(ScoringJob("of_mine:redness", "/elsewhere", "cpu", "float32")).load()
    assert answer.kind == "unusable"
    assert "No module named 'of_mine'" in answer.text
    assert "A worker imports it from /elsewhere: let the workers see that folder" in answer.text


def test_weights_that_cannot_be_read_make_a_worker_unusable_before_it_takes_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(scorer: Counting) -> None:
        raise RewardError("its weights are damaged")

    monkeypatch.setattr(Counting, "load", load)
    answer = Host(ScoringJob(COUNTING, None, "cpu", "float32")).load()
    assert (answer.kind, "its weights are damaged" in answer.text) == ("unusable", True)
