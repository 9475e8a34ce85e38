"""The pairs that raters are shown: spread over prompts, some of them shared and repeated, and where it decides most."""

from collections import Counter

import numpy as np
import pytest
from tests.analysis.voters import LAMS, votes_of

from deradiff.analysis.vote_design import Pair, as_pair, next_pair
from deradiff.analysis.votes import fit_votes
from deradiff.errors import ResultsError
from deradiff.results import Results
from deradiff.votes import Vote

FIT = fit_votes([], LAMS)


def results(prompts: int = 10, seeds: int = 2) -> Results:
    names = [f"prompt {number}" for number in range(prompts)]
    files = np.full((prompts, seeds, len(LAMS)), "image.png", dtype=object)
    return Results(prompts=names, seeds=range(seeds), lams=LAMS, scores={}, images=files)


def judge(pair: Pair, rater: str) -> Vote:
    return Vote(**pair._asdict(), outcome="tie", rater=rater)


def shown_to(table: Results, raters: list[str], count: int) -> list[Vote]:
    """Votes on what raters are shown in turn."""
    votes: list[Vote] = []
    for number in range(count):
        rater = raters[number % len(raters)]
        pair = next_pair(table, votes, rater, fit=FIT)
        if pair is not None:
            votes.append(judge(pair, rater))
    return votes


def test_the_same_votes_and_seed_give_the_same_pair() -> None:
    votes = votes_of(10, prompts=10)
    pairs = [next_pair(results(), votes, "Ada", seed=seed, fit=FIT) for seed in (0, 0, *range(1, 10))]
    assert pairs[0] == pairs[1]
    assert len(set(pairs)) > 5


def test_prompts_are_spread() -> None:
    votes = shown_to(results(), ["Ada"], 40)
    counts = Counter(vote.prompt for vote in votes)
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= 3


def test_a_rater_sees_no_pair_twice_but_a_few_with_swapped_sides() -> None:
    votes = shown_to(results(20, 4), ["Ada"], 120)
    pairs = [as_pair(vote) for vote in votes]
    repeats = [pair for number, pair in enumerate(pairs) if pair.images in {one.images for one in pairs[:number]}]
    assert 1 <= len(repeats) <= 15  # a twentieth
    assert all(pair.swapped in pairs for pair in repeats)
    assert max(Counter(pair.images for pair in pairs).values()) == 2


def test_a_share_of_pairs_is_judged_by_several_raters() -> None:
    votes = shown_to(results(20, 4), ["Ada", "Bo"], 200)
    judged = {rater: {as_pair(vote).images for vote in votes if vote.rater == rater} for rater in ("Ada", "Bo")}
    assert 10 <= len(judged["Ada"] & judged["Bo"]) <= 50  # 15% of 200


def test_raters_at_once_are_shown_different_pairs() -> None:
    table, pending = results(), list[Pair]()
    for number in range(10):
        pair = next_pair(table, [], f"rater {number}", pending=pending, fit=FIT)
        assert pair is not None
        pending.append(pair)
    assert len({pair.prompt for pair in pending}) == 10


def test_sides_are_random() -> None:
    votes = shown_to(results(20, 4), ["Ada"], 120)
    assert 40 <= sum(vote.left < vote.right for vote in votes) <= 80


def test_lams_that_may_be_the_best_are_shown_most() -> None:
    votes = votes_of(120, prompts=60)
    fit = fit_votes(votes, LAMS)
    pairs = [next_pair(results(), votes, f"rater {number}", fit=fit) for number in range(100)]
    lams = Counter(lam for pair in pairs if pair is not None for lam in (pair.left, pair.right))
    assert lams[1.0] > 50  # the best one
    assert lams[2.0] < lams[1.0] / 2


def test_it_ends_when_a_rater_has_judged_every_pair() -> None:
    table = results(1, 1)
    votes = shown_to(table, ["Ada"], 60)
    assert len({as_pair(vote).images for vote in votes}) == 10  # of five lams
    assert len(votes) <= 20
    assert next_pair(table, votes, "Bo", fit=FIT) is not None


def test_images_that_are_missing_are_not_shown() -> None:
    table = results()
    table.images[:9], table.images[:, 1], table.images[..., 2:] = "", "", ""
    pair = next_pair(table, [], "Ada", fit=FIT)
    assert pair is not None
    assert pair.images == ("prompt 9", 0, 0.0, 0.5)
    table.images[..., 1] = ""
    with pytest.raises(ResultsError, match="no two images of one prompt and seed at different lams"):
        next_pair(table, [], "Ada", fit=FIT)
