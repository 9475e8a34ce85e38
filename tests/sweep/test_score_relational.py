"""Metrics of an image among others: however a run is dealt into batches, remade or killed, its table is the truth."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel
from tests.rewards.counting import Counting
from tests.sweep.painted import images, paint, painted
from tests.sweep.subject import REWARD, finished

from deradiff import testbed
from deradiff.errors import RewardError
from deradiff.results import RewardInfo
from deradiff.sweep import Journal, Plan
from deradiff.sweep.score import score
from deradiff.sweep.writer import Writer

COUNTING = f"{Counting.__module__}:Counting"


def distance(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    return np.sqrt(np.square(first - second).mean((-3, -2, -1)))


def true_diversity(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Pair by pair, (prompts, seeds, lams)."""
    seeds = pixels.shape[1]
    total = np.zeros(pixels.shape[:3])
    for one, other in combinations(range(seeds), 2):
        total[:, [one, other]] += distance(pixels[:, one], pixels[:, other])[:, None]
    return total / (seeds - 1)


def is_true(journal: Journal, guidance: float | None = None) -> bool:
    results, pixels = journal.results(guidance), images(journal, guidance)
    truth = {"diversity": true_diversity(pixels)}
    truth["reference_distance"] = distance(pixels, pixels[:, :, [journal.plan.lams.index(0)]])
    scored = results.scores.keys() & truth
    return not results.unscored and all(np.allclose(results.scores[name], truth[name], atol=1e-6) for name in scored)


def scored_batches(journal: Journal) -> list[int]:
    return [record.batch for _, record in journal.scores]


@pytest.mark.parametrize("batch_size", [3, 6, 7, 12, 24, 36])
def test_batches_of_any_size_score_the_same(tmp_path: Path, batch_size: int) -> None:
    journal = painted(tmp_path, batch_size=batch_size, guidances=[1, 4])
    for name in ("diversity", "reference_distance"):
        counted: list[int] = []
        score(journal, name, counted.append)
        assert sum(counted) == journal.plan.count
    assert is_true(journal, 1)
    assert is_true(journal, 4)
    assert not np.allclose(journal.results(1).scores["diversity"], journal.results(4).scores["diversity"])


def test_nothing_is_scored_twice(tmp_path: Path) -> None:
    journal = painted(tmp_path)
    for _ in range(2):
        score(journal, "diversity")
        assert scored_batches(journal) == list(range(12))


def test_a_batch_made_again_is_scored_anew_with_all_that_compare_with_it(tmp_path: Path) -> None:
    journal = painted(tmp_path)
    score(journal, "diversity")
    paint(journal, 6, seed=1)  # the third of the second prompt's four seeds
    assert journal.results().unscored == {"diversity": 3}
    score(journal, "diversity")
    assert Counter(scored_batches(journal)[12:]) == Counter([4, 5, 6, 7])
    assert is_true(journal)


@pytest.mark.parametrize("remade", [[4], [4, 6], [7]])
def test_killed_halfway_the_rest_is_scored_anew(
    tmp_path: Path, remade: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = painted(tmp_path)
    score(journal, "diversity")
    for batch in remade:
        paint(journal, batch, seed=1)
    score(journal, REWARD)
    append, left = Writer.append, [1]

    def killed(writer: Writer, record: BaseModel) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(writer, record)

    for survives in range(4):
        left[0] = survives
        monkeypatch.setattr(Writer, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            score(journal, "diversity")
        editions = {own.batch: own.edition for _, own in journal.scores if own.reward == "diversity"}
        results = journal.results()
        assert results.unscored == {"diversity": 3 * sum(editions[batch] == 0 for batch in remade)}
        assert results.scores.keys() == {REWARD}
    monkeypatch.undo()
    score(journal, "diversity")
    assert is_true(journal)


def test_a_guidance_whose_turn_to_be_scored_did_not_come_is_told(tmp_path: Path) -> None:
    journal = painted(tmp_path, guidances=[1, 4])
    score(journal, REWARD)
    lines = journal.scores.path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if journal.plan.batch(json.loads(line)["batch"]).guidance == 0]
    journal.scores.path.write_text("".join(kept))
    assert (journal.results(1).unscored, journal.results(4).unscored) == ({}, {REWARD: 36})


def test_a_run_that_cannot_be_compared_is_told_first(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="needs at least 2 seeds"):
        score(painted(tmp_path / "one", seeds=[0]), "diversity")
    journal = painted(tmp_path / "two", lams=[0.5, 1])
    with pytest.raises(RewardError, match="needs lam = 0"):
        score(journal, "reference_distance")
    assert scored_batches(journal) == []


def test_what_cards_say_of_scales_is_told_in_the_table_and_unknown_to_old_journals(tmp_path: Path) -> None:
    journal = painted(tmp_path)
    for name in ("diversity", "reference_distance", "saturation", REWARD):
        score(journal, name)
    steady = RewardInfo(
        direction="steady",
        margin=0.25,
        relative=True,
        margin_source="this project's choice: a quarter of the reference",
    )
    wanted = {
        "diversity": RewardInfo(),
        "reference_distance": RewardInfo(direction="none"),
        "saturation": steady,
        REWARD: RewardInfo(),
    }
    assert journal.results().rewards == wanted
    assert journal.results().info("saturation") == steady
    lines = [json.loads(line) for line in journal.scores.path.read_text().splitlines()]
    assert {line["reward"]: RewardInfo(**line.pop("info")) for line in lines} == wanted
    journal.scores.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(journal.results().rewards.values()) == {RewardInfo()}
    older = [{**line, "better": wanted[line["reward"]].direction} for line in lines]  # before there were margins
    journal.scores.path.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert journal.results().rewards == {name: RewardInfo(direction=own.direction) for name, own in wanted.items()}


def test_a_published_models_scores_serve_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "asked", [])
    first = painted(tmp_path / "first")
    score(first, COUNTING)
    assert len(Counting.asked) == first.plan.count
    again = painted(tmp_path / "again")
    score(again, COUNTING)
    assert len(Counting.asked) == first.plan.count
    scores = again.results().scores[COUNTING]
    assert np.allclose(scores, images(again)[..., 0].mean((-2, -1)), atol=1e-6)
    assert np.array_equal(scores, first.results().scores[COUNTING])
    paint(again, 3, seed=1)
    score(again, COUNTING)
    assert Counting.asked[first.plan.count :] == ["one"] * 3


def test_on_the_embedded_pipeline(tmp_path: Path) -> None:
    plan = Plan.of(
        model=str(testbed.pipeline_path()),
        anchor=str(testbed.anchor_path()),
        prompts=["a white circle", "a purple triangle"],
        seeds=[0, 1],
        lams=[0, 1, 2],
        steps=3,
        batch_size=3,
    )
    journal = finished(tmp_path, plan)
    score(journal, "diversity")
    score(journal, "reference_distance")
    assert is_true(journal)
    moved = journal.results().scores["reference_distance"]
    assert (moved[..., 0] == 0).all()
    assert (np.diff(moved) > 0).all()
