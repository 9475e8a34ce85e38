"""What can be asked, and what a guard may lose."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.analysis.synthetic import RISE, sweep, table

from deradiff.analysis.criteria import Criteria, Guard, make_criteria, resolve_margin
from deradiff.errors import ResultsError
from deradiff.results import RewardInfo


@pytest.mark.parametrize("margin", [0.0, -0.0, -0.01, float("nan"), float("inf")])
def test_a_margin_that_no_prompts_could_show_is_refused_with_what_to_write(margin: float) -> None:
    with pytest.raises(ResultsError, match=r"guard 'hps'.*(hps:-1%|a number above 0)"):
        Guard("hps", margin=margin)
    with pytest.raises(ResultsError, match="margin"):
        Guard("hps", margin=margin, relative=True)


def test_a_margin_of_0_names_two_that_can_be_shown() -> None:
    with pytest.raises(ResultsError, match="hps:-1%, or name it alone"):
        Guard("hps", margin=0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"objectives": ()}, "no objective"),
        ({"objectives": ("",)}, "no objective"),
        ({"objectives": ("a", "a")}, "'a' is named twice"),
        ({"objectives": ("a",), "guards": (Guard("a"),)}, "'a' is named twice"),
        ({"objectives": ("a",), "guards": (Guard("b"), Guard("b", margin=1))}, "'b' is named twice"),
        ({"kl_budget": 0.0}, "KL budget is a number of nats above 0"),
        ({"kl_budget": -1.0}, "KL budget"),
        ({"kl_budget": float("nan")}, "KL budget"),
        ({"risk": 0.0}, "risk is a probability"),
        ({"risk": 0.51}, "at most 0.5, got 0.51"),
        ({"risk": float("nan")}, "risk"),
        ({"prefer": "largest"}, "'smallest' lam or the 'best', got 'largest'"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ResultsError, match=words):
        Criteria(**{"objectives": ("a",), **asked})
    assert Criteria(objectives=("a",), kl_budget=1.0, risk=0.5, prefer="best").rewards == ["a"]


def test_a_floor_is_a_number() -> None:
    with pytest.raises(ResultsError, match="floor of guard 'hps'"):
        Guard("hps", floor=-float("inf"))


def test_names_alone_will_do() -> None:
    made = make_criteria("a", ["b", Guard("c", margin=0.1)])
    assert made == Criteria(objectives=("a",), guards=(Guard("b"), Guard("c", margin=0.1)))
    assert make_criteria(["a", "d"]).objectives == ("a", "d")
    assert (made.guard_names, made.rewards) == (["b", "c"], ["a", "b", "c"])


def test_a_guard_named_alone_takes_the_margin_of_the_card() -> None:
    run = sweep({"hps": RISE + 3}, level=0.1)
    card = RewardInfo(margin=0.002, margin_source="a preference of 55 to 45")
    margin = resolve_margin(dataclasses.replace(run, rewards={"hps": card}), Guard("hps"))
    assert (margin.size, margin.share, margin.both) == (0.002, None, False)
    assert margin.source == "a preference of 55 to 45"
    share = dataclasses.replace(card, margin=0.25, relative=True, direction="steady")
    margin = resolve_margin(dataclasses.replace(run, rewards={"hps": share}), Guard("hps"))
    assert margin.size == pytest.approx(0.25 * run.scores["hps"][:, :, 0].mean())
    assert (margin.share, margin.both, str(margin)) == (0.25, True, "25%")


def test_without_a_card_it_may_lose_a_fifth_of_the_deviation_between_prompts() -> None:
    run = sweep({"r": RISE}, prompts=30, seeds=2)
    margin = resolve_margin(run, Guard("r"))
    between = run.scores["r"][:, :, 0].mean(axis=1).std(ddof=1)
    assert margin.size == pytest.approx(0.2 * between)
    assert (margin.share, margin.both) == (None, False)
    assert "0.2 standard deviations" in margin.source
    scores = run.scores["r"].copy()
    scores[5:, :, 0] = np.nan  # of the prompts that have one
    five = resolve_margin(dataclasses.replace(run, scores={"r": scores}), Guard("r"))
    assert five.size == pytest.approx(0.2 * scores[:5, :, 0].mean(axis=1).std(ddof=1))


def test_what_is_asked_goes_before_the_card() -> None:
    card = RewardInfo(margin=0.5, relative=True, direction="steady")
    run = sweep({"r": RISE + 3}, rewards={"r": card})
    margin = resolve_margin(run, Guard("r", margin=0.1, both=False))
    assert (margin.size, margin.share, margin.both, margin.source) == (0.1, None, False, "")


@pytest.mark.parametrize("level", [12.0, -12.0])
def test_a_share_is_of_the_size_of_the_reference(level: float) -> None:
    run = sweep({"r": RISE + level}, level=0.1, noise=0.01)
    margin = resolve_margin(run, Guard("r", margin=0.1, relative=True))
    assert margin.size == pytest.approx(1.2, rel=0.02)
    assert margin.share == 0.1


def test_where_no_margin_can_be_inferred_one_is_asked_for() -> None:
    flat = table({"r": np.zeros((4, 2, 2))}, (0.0, 1.0))
    with pytest.raises(ResultsError, match="say what it may lose, such as r:-1%"):
        resolve_margin(flat, Guard("r"))
    with pytest.raises(ResultsError, match=r"mean r at lam = 0 is 0.*such as r:-0\.1"):
        resolve_margin(flat, Guard("r", margin=0.1, relative=True))


@pytest.mark.parametrize(
    ("guards", "words"),
    [
        (["b:-10%"], r'deradiff.Guard\("b", margin=0.1, relative=True\)'),
        ("b:-10%", r'deradiff.Guard\("b", margin=0.1, relative=True\)'),
        (["b:±5%"], r'deradiff.Guard\("b", margin=0.05, relative=True, both=True\)'),
        (["mine:b:-0.02"], r'deradiff.Guard\("mine:b", margin=0.02\)'),
        (["http://host:80:-1%"], r'deradiff.Guard\("http://host:80", margin=0.01, relative=True\)'),
        ({"b": -0.1}, "guards: expected a list such as"),
        (5, "guards: expected a list such as"),
        ([5], "expected guards such as deradiff.Guard"),
        ([""], "a guard names a reward"),
    ],
)
def test_guards_as_the_command_line_spells_them_are_refused_with_what_python_takes(guards: Any, words: str) -> None:
    with pytest.raises(ResultsError, match=words):
        make_criteria("a", guards)


def test_the_name_of_one_guard_and_names_with_colons_will_do() -> None:
    assert make_criteria("a", "hps").guards == make_criteria("a", Guard("hps")).guards == (Guard("hps"),)
    for name in ("mine:redness", "http://host:8000", "http://host:8000/score"):
        assert make_criteria("a", [name]).guard_names == [name]


@pytest.mark.parametrize(
    "asked",
    [{"objectives": 5}, {"objectives": [5]}, {"kl_budget": "40"}, {"risk": "5%"}, {"risk": None}, {"prefer": 1}],
)
def test_values_of_another_type_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ResultsError):
        make_criteria(**{"objectives": "a", **asked})
    wrongs: list[dict[str, Any]] = [{"margin": "10%"}, {"margin": True}, {"floor": "0"}]
    for wrong in wrongs:
        with pytest.raises(ResultsError, match="is a number, got"):
            Guard("hps", **wrong)
    with pytest.raises(ResultsError, match="objectives are names"):
        Criteria(objectives="warmth")  # pyright: ignore[reportArgumentType]
