"""Blind pairs: the same until it is judged, counted once, and enough of them give a rater's lam back."""

from pathlib import Path

import pytest
from tests.runs.painted import painted

from deradiff.analysis.votes import fit_votes
from deradiff.app.ballots import Ballot, Ballots
from deradiff.errors import ConfigError, ResultsError
from deradiff.runs.run import Run

LAMS = [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    painted(tmp_path / "run", lams=LAMS, prompts=[f"prompt {n}" for n in range(8)], seeds=[0, 1])
    return Run(tmp_path / "run")


def shown(ballots: Ballots, rater: str = "anne") -> Ballot:
    ballot = ballots.next(rater, None)
    assert ballot is not None
    return ballot


def test_a_pair_stays_until_it_is_judged_and_counts_once(run: Run) -> None:
    ballots = Ballots(run)
    first = shown(ballots)
    assert shown(ballots) == first  # after a reload
    assert ballots.vote(first.ticket, "left")
    assert not ballots.vote(first.ticket, "right")  # a double click, or another window
    assert [vote.outcome for vote in run.votes()] == ["left"]
    assert shown(ballots).ticket != first.ticket
    assert not ballots.vote("no ticket", "left")
    assert len(run.votes()) == 1


def test_a_ballot_says_nothing_of_its_lams(run: Run) -> None:
    ballot = shown(Ballots(run))
    for png in (ballot.left, ballot.right):
        assert png.startswith(b"\x89PNG")
        assert b"tEXt" not in png
        assert b"lam" not in png


def test_raters_get_pairs_of_their_own_and_must_have_names(run: Run) -> None:
    ballots = Ballots(run)
    assert shown(ballots, "anne").ticket != shown(ballots, "bert").ticket
    for name in ("", "  ", "x" * 101):
        with pytest.raises(ConfigError, match="name"):
            ballots.next(name, None)


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    painted(tmp_path / "run", lams=[1.0])
    with pytest.raises(ResultsError, match="compare"):
        Ballots(Run(tmp_path / "run")).next("anne", None)


def test_thirty_votes_of_a_known_preference_give_its_lam_back(run: Run) -> None:
    ballots, preferred = Ballots(run), 1.0
    for _ in range(30):
        ballot = shown(ballots)
        pair = ballots._open[ballot.ticket].pair
        left, right = (abs(lam - preferred) for lam in (pair.left, pair.right))
        ballots.vote(ballot.ticket, "tie" if left == right else "left" if left < right else "right")
    fit = fit_votes(run.votes(), LAMS)
    assert fit.best == preferred
    assert fit.interval[0] <= preferred <= fit.interval[1]
    assert fit.interval != (LAMS[0], LAMS[-1])
    said = " ".join(ballots.standing(None))
    assert "Recommended lam" in said
    assert "by one rater" in said
    assert {vote.left < vote.right for vote in run.votes()} == {True, False}  # sides are random
