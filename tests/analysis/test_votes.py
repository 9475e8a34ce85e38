"""The fit of votes: Davidson's formulas, other packages' answers, and what no relabelling may change."""

from datetime import datetime, timedelta, timezone
from typing import Any

import choix
import numpy as np
import pytest
from tests.analysis.voters import LAMS, PEAK, votes_of

from deradiff.analysis.davidson import _laplace, log_likelihood, win_share
from deradiff.analysis.votes import fit_votes
from deradiff.errors import ConfigError, ResultsError
from deradiff.votes import Vote

VOTE: dict[str, Any] = {"prompt": "a cat", "seed": 0, "left": 0, "right": 1, "outcome": "left", "rater": "Ada"}


def test_probabilities_are_davidsons() -> None:
    """exp(d/2) : tie : exp(-d/2), from which a win counts 1 and a tie half; far apart nothing overflows."""
    d, tie = np.array([-3.0, 0.0, 0.7, 2.5]), 0.8
    parts = np.array([np.exp(d / 2), np.full(4, tie), np.exp(-d / 2)])
    parts /= parts.sum(axis=0)
    for sign, expected in zip((1.0, 0.0, -1.0), parts, strict=True):
        for difference, probability in zip(d, expected, strict=True):
            assert log_likelihood(np.array([difference]), np.array([sign]), tie)[0] == pytest.approx(
                np.log(probability)
            )
    np.testing.assert_allclose(win_share(d, tie), parts[0] + parts[1] / 2)
    assert win_share(np.array([-2000.0, 2000.0]), tie).tolist() == [0, 1]


def test_slopes_and_curvatures_are_those_of_the_likelihood() -> None:
    d, sign, step = np.array([-2.0, 0.3, 1.0, 4.0]), np.array([1.0, 0.0, -1.0, 1.0]), 1e-5
    _, gradient, curvature = log_likelihood(d, sign, 0.6)
    for index in range(4):
        shift = step * np.eye(4)[index]
        above, below = log_likelihood(d + shift, sign, 0.6), log_likelihood(d - shift, sign, 0.6)
        assert gradient[index] == pytest.approx((above[0] - below[0]) / (2 * step), rel=1e-6)
        assert curvature[index] == pytest.approx((below[1] - above[1])[index] / (2 * step), rel=1e-6)


def test_without_ties_the_mode_is_choixs_of_bradley_and_terry() -> None:
    rng, penalty = np.random.default_rng(0), 0.1
    pairs = [tuple(rng.choice(4, 2, replace=False)) for _ in range(60)]
    pairs = [(a, b) if rng.random() < 1 / (1 + np.exp(b - a)) else (b, a) for a, b in pairs]
    design = np.zeros((60, 4))
    for row, (winner, loser) in enumerate(pairs):
        design[row, winner], design[row, loser] = 1, -1
    mode = _laplace(design @ design.T / (2 * penalty), np.ones(60), 1e-12, np.zeros(60))
    expected = choix.opt_pairwise(4, pairs, alpha=penalty, tol=1e-10)
    np.testing.assert_allclose(design.T @ mode.gradient / (2 * penalty), expected, atol=1e-4)


@pytest.mark.parametrize("tie", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_mode_is_found_however_wide_the_prior_and_rare_the_wins(scale: float, tie: float) -> None:
    """There a = K⁻¹ d is the gradient of the likelihood; of wide priors and many ties, whole Newton steps never end."""
    rng = np.random.default_rng(0)
    root, sign = rng.normal(size=(12, 4)), rng.integers(-1, 2, 12).astype(float)
    prior = scale * (root @ root.T + 0.1 * np.eye(12))
    mode = _laplace(prior, sign, tie, np.zeros(12))
    gradient = log_likelihood(prior @ mode.gradient, sign, tie)[1]
    np.testing.assert_allclose(prior @ (gradient - mode.gradient), 0, atol=1e-4 * scale)


def test_many_votes_give_the_utilities_back() -> None:
    votes = votes_of(300, prompts=150)
    few, fit = fit_votes(votes[:20], LAMS), fit_votes(votes, LAMS)
    assert not few.is_decided
    assert (few.votes_needed or 0) > 0
    np.testing.assert_allclose(
        fit.mean - fit.mean.mean(), np.array(PEAK) - np.mean(PEAK), atol=0.7
    )  # three standard errors
    assert fit.best == 1.0
    assert fit.interval == (1.0, 1.0)
    assert fit.is_decided
    assert fit.votes_needed == 0
    assert fit.tie_rate == pytest.approx(0.5 / 2.5, abs=0.07)
    for index, win in enumerate(fit.win_rates(0.0)):
        expected = float(win_share(np.array(PEAK[index] - PEAK[0]), 0.5))
        assert win.low <= win.mean <= win.high
        assert win.mean == pytest.approx(expected, abs=0.08)
    with pytest.raises(ResultsError, match=r"lam = 7 is not among 0, 0\.5, 1, 1\.5, 2"):
        fit.win_rates(7)


def test_nothing_but_the_pairs_matters() -> None:
    """Not the order of votes, the sides, nor what prompts and raters are called."""
    votes = votes_of(40)
    sides = {"left": "right", "right": "left", "tie": "tie"}
    same = [
        vote.model_copy(
            update={
                "left": vote.right,
                "right": vote.left,
                "outcome": sides[vote.outcome],
                "prompt": f"another {vote.prompt}",
                "rater": f"another {vote.rater}",
            }
        )
        for vote in reversed(votes)
    ]
    one, other = fit_votes(votes, LAMS), fit_votes(same, LAMS)
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-3)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-3)
    assert np.array_equal(one.samples, fit_votes(votes, LAMS).samples)


def test_votes_on_one_prompt_say_less_than_votes_on_many() -> None:
    votes = votes_of(60)
    own_images = [vote.model_copy(update={"seed": number}) for number, vote in enumerate(votes)]
    one = fit_votes([vote.model_copy(update={"prompt": "the same"}) for vote in own_images], LAMS)
    many = fit_votes([vote.model_copy(update={"prompt": f"{vote.seed}"}) for vote in own_images], LAMS)
    assert (one.difference_errors(0)[1:] > many.difference_errors(0)[1:]).all()


def test_without_votes_every_lam_may_be_the_best() -> None:
    fit = fit_votes([], LAMS)
    assert fit.interval == (0.0, 2.0)
    assert not fit.is_decided
    assert fit.votes_needed is None
    assert fit.probability_best.min() > 0.1


def test_lams_that_tie_are_as_good_as_each_other() -> None:
    """No lam is told to be the best, and that is decided: none wins more than 55% against another."""
    ties = [vote.model_copy(update={"outcome": "tie"}) for vote in votes_of(100, prompts=100)]
    fit = fit_votes(ties, LAMS)
    assert fit.is_decided
    assert len(fit.credible_lams) > 1
    assert fit.tie_rate > 0.7


def test_votes_on_other_lams_are_an_error() -> None:
    with pytest.raises(ResultsError, match=r"a vote is on lam = 1\.5, which is not among 0, 0\.5, 1"):
        fit_votes(votes_of(40), [0.0, 0.5, 1.0])
    with pytest.raises(ResultsError, match="no lams"):
        fit_votes([], [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"left": 1}, "a vote compares two lams"),
        ({"right": float("nan")}, "right is nan; expected a finite number"),
        ({"outcome": "both"}, "outcome is 'both'"),
        ({"rater": "  "}, "rater"),
        ({"prompt": ""}, "prompt"),
        ({"seed": 1 << 70}, "seed"),
        ({"time": datetime(2026, 1, 1)}, "time"),
        ({"note": "nice"}, "no setting 'note'"),
    ],
)
def test_what_is_no_vote_is_an_error_that_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Vote(**{**VOTE, **changes})


def test_times_are_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    vote = Vote(**VOTE, time=datetime(2026, 1, 1, 1, tzinfo=zone))
    assert vote.time == datetime(2025, 12, 31, 23, tzinfo=timezone.utc)
    assert vote.model_dump_json().count("2025-12-31T23:00:00Z") == 1


def test_botorchs_pairwise_gp_orders_the_lams_alike() -> None:
    """It has a probit link and no ties: another model of the same votes."""
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("botorch.models.pairwise_gp")
    votes = [vote for vote in votes_of(150, tie=1e-9, prompts=75) if vote.outcome != "tie"]
    won = [(vote.left, vote.right) if vote.outcome == "left" else (vote.right, vote.left) for vote in votes]
    points = torch.tensor(LAMS, dtype=torch.double)[:, None]
    comparisons = torch.tensor([[LAMS.index(lam) for lam in pair] for pair in won])
    model = models.PairwiseGP(points / 2, comparisons)
    utility = model.posterior(points / 2).mean.detach().numpy().ravel()
    assert np.argsort(utility).tolist() == np.argsort(fit_votes(votes, LAMS).mean).tolist()
