"""The cache of scores: what was scored is never scored again, and nothing else is taken for it."""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rewards.counting import CARD, Counting
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.cache import Image, cached_scores


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "asked", [])
    return tmp_path / "cache"


def image(level: float, prompt: str = "a") -> Image:
    return Image(torch.full((3, 2, 2), level), f"{level}", prompt)


def asked(reward: Any, *images: Image) -> tuple[list[float], list[str]]:
    """The scores, and the prompts that the reward itself saw."""
    Counting.asked.clear()
    return cached_scores("mine", reward, images), list(Counting.asked)


def test_what_was_scored_is_not_scored_again() -> None:
    first = asked(Counting(), image(0.1, "a"), image(0.7, "b"))
    assert first == ([pytest.approx(0.1), pytest.approx(0.7)], ["a", "b"])
    assert asked(Counting(), image(0.1, "a"), image(0.7, "b")) == (first[0], [])


def test_only_what_is_unknown_is_asked_and_all_stay_in_order() -> None:
    asked(Counting(), image(0, "a"), image(0.75, "d"))
    mixed = [image(0, "a"), image(0.25, "b"), image(0.5, "c"), image(0.75, "d"), image(1, "e")]
    assert asked(Counting(), *mixed) == ([0, 0.25, 0.5, 0.75, 1], ["b", "c", "e"])


def test_another_image_prompt_model_or_precision_is_another_score() -> None:
    class Other(Counting):
        card = replace(CARD, model="nobody/redder")

    class Named(Counting):
        card = replace(CARD, name="Other")

    asked(Counting(), image(0.5))
    for reward, one in (
        (Counting(), image(0.6)),
        (Counting(), image(0.5, "b")),
        (Other(), image(0.5)),
        (Named(), image(0.5)),
        (Counting(dtype="bfloat16"), image(0.5)),
    ):
        assert asked(reward, one)[1] == [one.prompt]
        assert asked(reward, one)[1] == []


def test_what_may_change_is_not_kept(tmp_path: Path, folder: Path) -> None:
    class Unnamed(Counting):
        card = replace(CARD, model="none")

    scorer = Counting()

    def function(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return scorer(pixels, prompts)

    for reward in (Counting(source=tmp_path), Unnamed(), function):
        for _ in range(2):
            assert asked(reward, image(0.5)) == ([0.5], ["a"])
    assert not folder.exists()


def test_a_score_that_is_none_is_not_kept() -> None:
    with pytest.raises(RewardError, match="a finite number each"):
        asked(Counting(), image(float("nan")))
    assert asked(Counting(), Image(torch.ones(3, 2, 2), "nan", "a")) == ([1], ["a"])


def test_a_process_waits_for_another_that_writes(folder: Path) -> None:
    asked(Counting(), image(0.5))
    other = sqlite3.connect(folder / "scores.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    assert asked(Counting(), image(0.25, "b")) == ([0.25], ["b"])
    timer.join()
    other.close()


def test_a_cache_that_cannot_be_used_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(Counting(), image(0.5))
    (folder / "scores.sqlite").write_bytes(b"nothing of a database" * 100)
    with pytest.raises(RewardError, match=r"scores\.sqlite can't be used \(file is not a database\); .* delete it"):
        asked(Counting(), image(0.5))
    monkeypatch.setenv("DERADIFF_CACHE", str(folder / "scores.sqlite" / "below"))
    with pytest.raises(RewardError, match=r"Not a directory.*set DERADIFF_CACHE"):
        asked(Counting(), image(0.5))


def test_it_lies_in_the_home_folder_unless_set_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DERADIFF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    asked(Counting(), image(0.5))
    assert (tmp_path / ".cache" / "deradiff" / "scores.sqlite").is_file()
