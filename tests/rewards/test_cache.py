"""The cache of scores: what was scored is never scored again, and nothing else is taken for it."""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.rewards.counting import CARD, Counting
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.cache import ImageKey, read_scores, write_scores

ONE = ImageKey("0f", "a")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(score: float = 0.5, reward: Any = None) -> None:
    write_scores(reward or Counting(), {ONE: score})


def test_what_is_known_comes_back_in_order_to_the_last_bit() -> None:
    images = [ImageKey(f"{number}", "a") for number in range(4)]
    write_scores(Counting(), {images[3]: 0.1, images[1]: 1 / 3})
    assert read_scores(Counting(), images) == [None, 1 / 3, None, 0.1]
    assert read_scores(Counting(), []) == []


def test_another_image_prompt_model_or_precision_is_another_score() -> None:
    class Other(Counting):
        card = replace(CARD, model="nobody/redder")

    class Named(Counting):
        card = replace(CARD, name="Other")

    keep()
    for reward, image in (
        (Counting(), ImageKey("0e", "a")),
        (Counting(), ImageKey("0f", "b")),
        (Other(), ONE),
        (Named(), ONE),
        (Counting(dtype="bfloat16"), ONE),
    ):
        assert read_scores(reward, [image]) == [None]
        write_scores(reward, {image: 0.25})
        assert read_scores(reward, [image]) == [0.25]
    assert read_scores(Counting(), [ONE]) == [0.5]


def test_what_may_change_is_not_kept(tmp_path: Path, folder: Path) -> None:
    class Unnamed(Counting):
        card = replace(CARD, model="none")

    def function(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        raise AssertionError("the cache asks no reward")

    for reward in (Counting(source=tmp_path), Unnamed(), function):
        keep(reward=reward)
        assert read_scores(reward, [ONE]) == [None]
    assert not folder.exists()


def test_a_process_waits_for_another_that_writes(folder: Path) -> None:
    keep()
    other = sqlite3.connect(folder / "scores.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    keep(0.25)
    assert read_scores(Counting(), [ONE]) == [0.25]
    timer.join()
    other.close()


def test_a_cache_that_cannot_be_used_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep()
    (folder / "scores.sqlite").write_bytes(b"nothing of a database" * 100)
    with pytest.raises(RewardError, match=r"scores\.sqlite can't be used \(file is not a database\); .* delete it"):
        read_scores(Counting(), [ONE])
    monkeypatch.setenv("DERADIFF_CACHE", str(folder / "scores.sqlite" / "below"))
    with pytest.raises(RewardError, match=r"Not a directory.*set DERADIFF_CACHE"):
        keep()


def test_it_lies_in_the_home_folder_unless_set_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DERADIFF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    keep()
    assert (tmp_path / ".cache" / "deradiff" / "scores.sqlite").is_file()
