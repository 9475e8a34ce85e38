"""Questions as they are typed, and what each guard lets pass."""

import numpy as np
import pytest
from tests.recommend.subject import LAMS, RISE, results

from deradiff.errors import ResultsError
from deradiff.recommend import Guard, ask, recommend

FALL = -np.array(LAMS)  # by 1 a unit of lam


def test_guards_are_read_as_typed() -> None:
    question = ask("pickscore", "hps:0,clip:-0.5%, diversity:-10% ,edges:±5%,contrast:+-0.1,mine:redness,mine:b:-2")
    assert question.guards == (
        Guard(reward="hps"),
        Guard(reward="clip", allowed=0.005, relative=True),
        Guard(reward="diversity", allowed=0.1, relative=True),
        Guard(reward="edges", allowed=0.05, relative=True, both=True),
        Guard(reward="contrast", allowed=0.1, both=True),
        Guard(reward="mine:redness"),
        Guard(reward="mine:b", allowed=2.0),
    )
    assert ask("a, b").objectives == ("a", "b")


@pytest.mark.parametrize(
    ("objective", "guard", "budget", "words"),
    [
        ("", None, None, "no objective"),
        ("a", "a:-1%", None, "both 'a'"),
        ("a,a", None, None, "objective 'a' is given twice"),
        ("a", "b,b:-1", None, "'b' is given twice"),
        ("a", "b:-x%", None, "can't read the guard 'b:-x%'"),
        ("a", "b:-5%%", None, "can't read the guard"),
        ("a", "b:0.1", None, "asks for a rise"),
        ("a", "b:+5%", None, "b:-5%"),
        ("a", None, -1.0, "KL budget"),
        ("a", None, float("nan"), "KL budget"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused(
    objective: str, guard: str | None, budget: float | None, words: str
) -> None:
    with pytest.raises(ResultsError, match=words):
        ask(objective, guard, budget)


@pytest.mark.parametrize(
    ("guard", "level", "last"),
    [
        ("gold:-0.6", 0, 0.5),
        ("gold:-1.2", 0, 1.0),
        ("gold:-10%", 12, 1.0),
        ("gold:-10%", -12, 1.0),
        ("gold:±1.7", 0, 1.5),
        ("gold:0", 0, 0.0),
    ],
)
def test_an_allowance_is_used_up_where_it_says(guard: str, level: float, last: float) -> None:
    table = results({"proxy": RISE, "gold": FALL + level}, noise=0.01, level=0.1)
    assert recommend(table, objective="proxy", guard=guard).lam == last


def test_a_rise_fails_only_the_guard_of_both_sides() -> None:
    table = results({"proxy": RISE, "gold": -FALL}, noise=0.01)
    assert recommend(table, objective="proxy", guard="gold:-0.6").lam == 4
    assert recommend(table, objective="proxy", guard="gold:±0.6").lam == 0.5


def test_every_guard_must_hold() -> None:
    table = results({"proxy": RISE, "gold": FALL, "silver": 2 * FALL}, noise=0.01)
    choice = recommend(table, objective="proxy", guard="gold:-1.2,silver:-1.2")
    assert choice.lam == 0.5
    assert choice.failing[LAMS.index(1.0)] == ("silver",)
    assert choice.failures[LAMS.index(1.0)] == "silver is significantly more than 1.2 below the reference"


def test_the_kl_budget_ends_the_choice_where_the_path_leaves_it() -> None:
    spread = np.array([0.5, 1.5] * 2)[:, None]  # of seeds: the mean is what counts
    table = results({"proxy": RISE}, path_kl=10 * spread * np.square(LAMS))
    assert recommend(table, objective="proxy", kl_budget=11).lam == 1
    with pytest.raises(ResultsError, match="didn't record"):
        recommend(results({"proxy": RISE}), objective="proxy", kl_budget=11)
