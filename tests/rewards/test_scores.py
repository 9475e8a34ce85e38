"""Rewards are other people's code: whatever they do is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deradiff.errors import RewardError
from deradiff.rewards import compute_scores, load_reward

PIXELS, PROMPTS = torch.rand(3, 3, 4, 4), ["a", "b", "c"]


def test_one_number_an_image() -> None:
    given: list[Any] = [[1, 2, 3], torch.tensor([[1.0], [2.0], [3.0]]), np.array([1, 2, 3]), (1.0, 2, 3)]
    given += [[torch.tensor(1), np.float32(2), torch.tensor([3.0])], torch.tensor([1, 2, 3], dtype=torch.bfloat16)]
    given += [torch.ones(3, requires_grad=True) * torch.tensor([1.0, 2.0, 3.0])]
    for values in given:

        def reward(pixels: Any, prompts: Any, values: Any = values) -> Any:
            return values

        assert compute_scores("mine", reward, PIXELS, PROMPTS) == [1, 2, 3]


def test_truth_values_count_0_or_1() -> None:
    for make in (list, torch.tensor, np.array):
        reward: Any = lambda pixels, prompts, make=make: make([True, False, True])  # noqa: E731
        assert compute_scores("mine", reward, PIXELS, PROMPTS) == [1, 0, 1]


class OwnError(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), OwnError("oops"), RecursionError(), MemoryError()])
def test_a_reward_that_ends_the_process_or_raises_anything_is_told(error: BaseException) -> None:
    def reward(pixels: Any, prompts: Any) -> Any:
        raise error

    with pytest.raises(RewardError, match=f"'mine' failed on 3 images: {type(error).__name__}"):
        compute_scores("mine", reward, PIXELS, PROMPTS)


def test_an_error_that_cannot_be_shown_is_told() -> None:
    class UnshowableError(Exception):
        def __str__(self) -> str:
            raise ValueError

    def reward(pixels: Any, prompts: Any) -> Any:
        raise UnshowableError

    with pytest.raises(RewardError, match="UnshowableError: without a message, as its __str__ raises ValueError"):
        compute_scores("mine", reward, PIXELS, PROMPTS)


def test_ctrl_c_in_a_reward_stops_everything() -> None:
    def reward(pixels: Any, prompts: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_scores("mine", reward, PIXELS, PROMPTS)


def raising(pixels: Any, prompts: Any) -> Any:
    raise KeyError("oops")


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (raising, r"'mine' failed on 3 images: KeyError: 'oops' \(test_scores\.py, line \d+\)"),
        (lambda pixels: pixels, "'mine' failed on 3 images: TypeError"),
        (lambda pixels, prompts: None, "returned a NoneType for 3 images; expected a finite number each"),
        (lambda pixels, prompts: prompts, "returned a list for 3 images"),
        (lambda pixels, prompts: pixels, r"numbers of shape \(3, 3, 4, 4\) for 3 images"),
        (lambda pixels, prompts: torch.zeros(2), r"numbers of shape \(2,\)"),
        (lambda pixels, prompts: [1.0, float("nan"), 2.0], r"\[1\.0, nan, 2\.0\]"),
        (lambda pixels, prompts: [1.0, float("inf"), 2.0], r"\[1\.0, inf, 2\.0\]"),
        (lambda pixels, prompts: [10**400, 1, 2], "returned a list for 3 images"),
        (lambda pixels, prompts: "123", "returned a str for 3 images"),
        (lambda pixels, prompts: {"a": 1, "b": 2, "c": 3}, "returned a dict for 3 images"),
        (lambda pixels, prompts: torch.zeros(3, dtype=torch.complex64), "complex numbers"),
        (lambda pixels, prompts: np.array(["1", "2", "3"]), "returned a ndarray for 3 images"),
        (lambda pixels, prompts: np.array([1, None, 3]), "returned a ndarray for 3 images"),
        (lambda pixels, prompts: [[1], [2, 3], [4]], "returned a list for 3 images"),
        (lambda pixels, prompts: torch.tensor(1.0), r"numbers of shape \(\)"),
        (lambda pixels, prompts: iter([1, 2, 3]), "returned a list_iterator for 3 images"),
        (lambda pixels, prompts: torch.ones(3).to_sparse(), "a sparse tensor"),
    ],
)
def test_what_is_no_score_is_reported(reward: Any, told: str) -> None:
    with pytest.raises(RewardError, match=told):
        compute_scores("mine", reward, PIXELS, PROMPTS)


def test_a_module_that_cannot_be_imported_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torn.py").write_text("def f(:\n")
    (tmp_path / "wrong.py").write_text("undefined\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)\n")
    for name, told in (
        ("torn:f", "SyntaxError"),
        ("leaving:f", "SystemExit"),
        ("wrong:f", r"NameError.*\(wrong\.py, line 1\)"),
    ):
        with pytest.raises(RewardError, match=rf"'{name}' can't be imported: .*{told}"):
            load_reward(name)
    for name in (":f", "a/file.py:f", "file.py :f"):
        with pytest.raises(RewardError, match=rf"can't read the reward '{name}': expected module:function"):
            load_reward(name)
