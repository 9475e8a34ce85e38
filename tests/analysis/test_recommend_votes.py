"""What people's votes recommend: the lam that they prefer among those at which the guards hold."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.analysis.synthetic import sweep
from tests.analysis.voters import LAMS, PEAK, votes_of

from deradiff.analysis import messages
from deradiff.analysis.as_json import as_json
from deradiff.analysis.criteria import Guard, make_criteria
from deradiff.analysis.decide import decide
from deradiff.analysis.gains import PromptGains
from deradiff.analysis.limits import prompt_means
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.analysis.vote_gains import VoteGains
from deradiff.analysis.votes import fit_votes
from deradiff.errors import ResultsError
from deradiff.results import Results

VOTES = votes_of(120, prompts=60)
TABLE = replace(
    sweep({"hps": -0.2 * np.array(LAMS), "other": np.array(LAMS)}, lams=LAMS, prompts=60, seeds=2), votes=VOTES
)
HOLDS_TO_HALF = Guard("hps", margin=0.15)


@pytest.fixture(scope="module")
def free() -> Recommendation:
    return recommend(TABLE, "votes")


@pytest.fixture(scope="module")
def guarded() -> Recommendation:
    return recommend(TABLE, "votes", HOLDS_TO_HALF)


def test_without_guards_it_is_the_lam_that_people_prefer(free: Recommendation) -> None:
    assert free.votes is not None
    assert free.lam == free.votes.best == LAMS[int(np.argmax(PEAK))]
    assert free.interval == free.votes.interval
    assert free.criteria.prefer == "best"
    assert list(free.curves) == ["votes", "hps", "other"]


def test_guards_hold_votes_back_as_they_do_rewards(guarded: Recommendation) -> None:
    """Verdicts don't depend on the objective; the lam is the preferred one among those that hold."""
    assert guarded.verdicts == recommend(TABLE, "other", HOLDS_TO_HALF).verdicts
    assert guarded.lam == 0.5
    assert guarded.votes is not None
    assert guarded.votes.best == 1.0
    assert guarded.interval[0] <= 0.5 <= guarded.interval[1]


def test_the_curve_of_votes_is_the_posterior(guarded: Recommendation) -> None:
    curve, fit = guarded.curves["votes"], guarded.votes
    assert fit is not None
    assert curve.score == pytest.approx(fit.mean - fit.mean[0])
    assert curve.wins == fit.win_rates(0.0)
    assert curve.wins_anchor == fit.win_rates(1.0)
    assert all(band.low <= change.low for band, change in zip(curve.band, curve.change, strict=True))
    assert (curve.change[0].low, curve.change[0].high) == (0, 0)
    assert sum(curve.pairs) == 2 * len(VOTES)


def test_votes_and_scores_of_the_same_gains_are_decided_alike() -> None:
    """Many prompts whose scores are drawn from the votes' posterior give the votes' lam."""
    fit = fit_votes(VOTES, LAMS)
    votes = VoteGains(fit, 0)
    scores = PromptGains(prompt_means(votes.samples[:200, None]))
    criteria = make_criteria("votes", HOLDS_TO_HALF)
    one, other = (decide(TABLE, criteria, gains=gains) for gains in (votes, scores))
    assert one.choice.candidate == other.choice.candidate
    assert one.verdicts == other.verdicts


def test_too_few_votes_recommend_the_reference() -> None:
    answer = recommend(replace(TABLE, votes=VOTES[:4]), "votes")
    assert answer.lam == 0
    assert "these 4 votes don't settle whether" in messages.headline(answer)
    assert "more vote" in (messages.to_settle(answer) or "")


def test_words_say_whose_votes_they_are(guarded: Recommendation) -> None:
    ties = np.mean([vote.outcome == "tie" for vote in VOTES])
    first, *others = messages.reasons(guarded)
    assert first.startswith(f"From 120 votes by 2 raters on {guarded.votes.prompts} prompts ({ties:.0%} ties): ")  # pyright: ignore[reportOptionalMemberAccess]
    assert "at lam = 0.5 are preferred to the reference's in" in first
    assert "in logits" in others[0]
    one = recommend(replace(TABLE, votes=[vote.model_copy(update={"rater": "Ada"}) for vote in VOTES]), "votes")
    assert any("by one rater" in warning for warning in messages.warnings(one))
    assert not any("alarm" in warning for warning in messages.warnings(one))


def test_the_json_has_what_votes_say(guarded: Recommendation) -> None:
    found = as_json(guarded)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["votes"]["votes"] == 120
    assert found["votes"]["best"] == 1.0
    assert found["lams"][1]["rewards"]["votes"]["wins"]["mean"] > 0.5
    docs = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text("utf-8")
    assert set(found["votes"]) <= set(re.findall(r"`(\w+)`", docs))
    assert as_json(recommend(TABLE, "other"))["votes"] is None


@pytest.mark.parametrize(("objectives", "guards"), [(["votes", "hps"], []), ("hps", ["votes"])])
def test_votes_stand_alone(objectives: str | list[str], guards: list[str]) -> None:
    with pytest.raises(ResultsError, match="votes are an objective of their own"):
        recommend(TABLE, objectives, guards)


def test_a_table_without_votes_says_what_to_do() -> None:
    with pytest.raises(ResultsError, match="no votes yet: let people compare its images"):
        recommend(replace(TABLE, votes=()), "votes")
    with pytest.raises(ResultsError, match="give no image a score"):
        TABLE.scored("votes")
    with pytest.raises(ResultsError, match=r"votes: expected a list of deradiff\.Vote"):
        replace(TABLE, votes=["left"])


def test_votes_follow_the_prompts_and_lams_that_are_selected() -> None:
    part: Results = TABLE.select(range(30), [0, 1, 2])
    assert 0 < len(part.votes) < len(VOTES)
    assert {vote.prompt for vote in part.votes} <= set(part.prompts)
    assert {lam for vote in part.votes for lam in vote.lams} <= {0, 0.5, 1}
    on_axes = TABLE.on_axes(part.prompts, [0], part.lams)
    assert {vote.seed for vote in on_axes.votes} == {0}
