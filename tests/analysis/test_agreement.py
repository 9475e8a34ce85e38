"""How far raters agree with each other, with themselves, and rewards with them."""

import numpy as np
import pytest
from tests.analysis.voters import votes_of

from deradiff.analysis import agreement
from deradiff.analysis.agreement import rater_agreement, reward_agreement
from deradiff.results import Results
from deradiff.votes import Outcome, Vote

LAMS = [0.0, 0.5, 1.0]


def judged(signs: dict[str, list[int]]) -> list[Vote]:
    """Votes of several raters on the same pairs: 1 where the larger lam is better."""
    outcomes: dict[int, Outcome] = {1: "right", 0: "tie", -1: "left"}
    return [
        Vote(prompt=f"prompt {n}", seed=0, left=0, right=1, outcome=outcomes[sign], rater=rater)
        for rater, column in signs.items()
        for n, sign in enumerate(column)
    ]


def test_raters_who_agree_have_an_alpha_of_1_and_opposites_are_below_0() -> None:
    signs = [1, -1, 0, 1, 1, -1, 0, -1]
    same = rater_agreement(judged({"Ada": signs, "Bo": signs}))
    assert same.alpha is not None
    assert (same.alpha.mean, same.alpha.low, same.pairs) == (1, 1, 8)
    turned = rater_agreement(judged({"Ada": signs, "Bo": [-sign for sign in signs]}))
    assert turned.alpha is not None
    assert turned.alpha.high < 0


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    """Four observers, twelve units, gaps: 0.815 in the ordinal metric (Krippendorff 2011)."""
    rows = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    table = np.array([[float(value) if value != "." else np.nan for value in row] for row in rows])
    assert agreement._alpha(table) == pytest.approx(0.815, abs=5e-4)


def test_a_tie_is_nearer_to_a_win_than_a_loss_is() -> None:
    signs = [1, -1] * 10
    near, far = (rater_agreement(judged({"Ada": signs, "Bo": [other, *signs[1:]]})).alpha for other in (0, -1))
    assert near is not None
    assert far is not None
    assert far.mean < near.mean < 1


def test_swapped_sides_are_the_same_pair_and_a_raters_repeats_are_told() -> None:
    vote = judged({"Ada": [1]})[0]
    swapped = vote.model_copy(update={"left": vote.right, "right": vote.left, "outcome": "left"})
    other = vote.model_copy(update={"prompt": "another"})
    repeated = rater_agreement([vote, swapped, other, other.model_copy(update={"outcome": "tie"})])
    assert (repeated.repeats, repeated.consistent) == (2, 0.5)
    assert repeated.alpha is None
    assert repeated.pairs == 0


def test_without_votes_nothing_is_said() -> None:
    nothing = rater_agreement([])
    assert (nothing.alpha, nothing.pairs, nothing.repeats, nothing.consistent) == (None, 0, 0, None)


def test_a_reward_agrees_as_often_as_its_higher_image_won() -> None:
    prompts = [f"prompt {number}" for number in range(20)]
    rising = np.broadcast_to(np.array(LAMS), (20, 2, 3))
    gaps = np.where(np.arange(20)[:, None, None] < 10, rising, np.nan)
    scores = {"rising": rising, "falling": -rising, "level": 0 * rising, "gaps": gaps}
    table = Results(prompts=prompts, seeds=[0, 1], lams=LAMS, scores=scores)
    votes = votes_of(100, (0.0, 1.0, 2.0), lams=LAMS)
    decided = [vote for vote in votes if vote.sign]
    expected = np.mean([vote.sign > 0 for vote in decided])
    found = reward_agreement(votes, table)
    share, count = found["rising"]
    assert (share.mean, count) == (pytest.approx(expected), len(decided))
    assert share.low < share.mean < share.high
    assert found["falling"][0].mean == pytest.approx(1 - expected)
    assert found["level"][0].mean == 0.5
    assert found["gaps"][1] == sum(int(vote.prompt.split()[1]) < 10 for vote in decided)
