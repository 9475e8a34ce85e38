"""One reward along lam: paired by image, clustered by prompt, and never without width."""

import dataclasses

import numpy as np
import pytest
from tests.analysis.synthetic import COLLAPSE, LAMS, RISE, Floats, noise, share_above, sweep, table

from deradiff.analysis.curves import (
    Curve,
    equivalent_beta,
    is_discrete,
    paired_changes,
    paired_curve,
    reference_range,
    score_bounds,
)
from deradiff.errors import ResultsError
from deradiff.results import Results, RewardInfo


def widths(curve: Curve) -> list[float]:
    return [own.high - own.low for own in curve.change]


def test_the_change_is_of_the_pairs_and_the_score_goes_along() -> None:
    run = sweep({"r": RISE})
    curve = paired_curve(run, "r")
    scores = run.scores["r"]
    assert curve.lams == LAMS
    np.testing.assert_allclose([own.mean for own in curve.change], (scores - scores[:, :, :1]).mean(axis=(0, 1)))
    np.testing.assert_allclose(curve.score, scores.mean(axis=(0, 1)))
    assert curve.pairs == (12 * 4,) * len(LAMS)
    assert all(
        band.low <= own.low < own.mean < own.high <= band.high
        for own, band in zip(curve.change, curve.band, strict=True)
        if own.mean
    )


def test_only_the_reference_is_known_exactly() -> None:
    curve = paired_curve(sweep({"r": COLLAPSE}), "r")
    assert curve.change[0] == curve.band[0]
    assert (curve.change[0].mean, curve.change[0].low, curve.change[0].high) == (0, 0, 0)
    assert min(widths(curve)[1:]) > 0


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize(
    "scores",
    [
        np.ones((6, 1, 3)),  # all win
        np.zeros((6, 1, 3)),
        np.full((6, 1, 3), -7.5),
        np.arange(18.0).reshape(6, 1, 3)[:, :, :1] * np.ones(3),  # the same images at every lam
        np.array([1.0, 0.5, 0.25]) * np.ones((6, 1, 1)),  # all prompts alike
        np.arange(6.0)[:, None, None] + np.array([0.0, 1.0, -1.0]),  # all prompts change alike
        np.array([1.0, 1.0, 0.0]) * np.ones((6, 1, 1)),  # all lose
        np.random.default_rng(0).normal(size=(40, 1, 1)) * np.ones(3),  # the same images, of a measure
    ],
    ids=["ones", "zeros", "constant", "same-images", "same-prompts", "same-changes", "all-lose", "same-measured"],
)
def test_no_interval_has_zero_width(scores: Floats, seeds: int) -> None:
    curve = paired_curve(table({"r": np.tile(scores, (1, seeds, 1))}, (0.0, 1.0, 2.0)), "r")
    for found in (curve.change[1:], curve.band[1:], curve.wins):
        assert min(own.high - own.low for own in found) > 1e-3
    assert all(own.low <= own.mean <= own.high for own in (*curve.change, *curve.band, *curve.wins))


@pytest.mark.parametrize("change", [0.0, -0.3])
def test_changes_that_are_alike_but_for_rounding_have_no_zero_width_either(change: float) -> None:
    levels = np.random.default_rng(0).normal(size=(10, 1, 1))
    curve = paired_curve(table({"r": levels + np.array([0, change])}, (0.0, 1.0)), "r")
    assert widths(curve)[1] > 1e-3


def test_prompts_of_different_difficulty_do_not_matter() -> None:
    """Levels differ by 100 between prompts, the fall by 0.05 within them: only a paired test sees it."""
    near, far = (paired_curve(sweep({"r": 0.1 * COLLAPSE}, noise=0.01, level=level), "r") for level in (0.0, 100.0))
    np.testing.assert_allclose([own.low for own in far.change], [own.low for own in near.change], atol=1e-6)
    assert far.change[4].high < 0


def test_repeating_every_seed_adds_no_confidence() -> None:
    run = sweep({"r": RISE})
    doubled = table({"r": np.tile(run.scores["r"], (1, 2, 1))}, LAMS)
    np.testing.assert_allclose(widths(paired_curve(doubled, "r")), widths(paired_curve(run, "r")))


def test_more_seeds_narrow_what_is_noise_of_images() -> None:
    narrow = [np.mean(widths(paired_curve(sweep({"r": RISE}, seeds=seeds), "r"))) for seeds in (1, 8)]
    assert narrow[1] < 0.8 * narrow[0]


@pytest.mark.parametrize(("kind", "prompts"), [("normal", 8), ("exponential", 4)])
def test_changes_lie_within_their_limits_as_often_as_claimed(kind: str, prompts: int) -> None:
    """Of many lams, each with images of its own."""
    runs, rng = 100, np.random.default_rng(0)
    changes = 0.3 + noise(kind, rng, (prompts, 1, runs)) + rng.normal(size=(prompts, 2, runs))
    level = rng.normal(size=(prompts, 1, 1))
    scores = np.concatenate([level + np.zeros((prompts, 2, 1)), level + changes], axis=2)
    curve = paired_curve(table({"r": scores}, range(runs + 1)), "r")
    missed = np.mean([not own.low <= 0.3 <= own.high for own in curve.change[1:]])
    assert missed <= share_above(0.05, runs)


def test_a_band_holds_all_of_a_curve() -> None:
    runs, truth = 25, np.array([0.0, 0.3, 0.0, -0.1])
    missed = 0
    for seed in range(runs):
        run = sweep({"r": truth}, lams=(0.0, 0.5, 1.0, 2.0), seeds=2, prompts=6, noise=0.3, rng_seed=seed)
        band = paired_curve(run, "r").band
        missed += any(not own.low <= mean <= own.high for own, mean in zip(band, truth, strict=True))
    assert missed / runs <= share_above(0.05, runs)


def test_wins_are_of_pairs_at_lam_0_and_at_the_anchor() -> None:
    scores = np.array([[[0.0, 1.0, 2.0], [0.0, -1.0, 0.5]], [[5.0, 5.0, 4.0], [1.0, 2.0, 1.5]]])
    curve = paired_curve(table({"r": scores}, (0.0, 1.0, 2.0)), "r")
    assert [own.mean for own in curve.wins] == [0.5, 0.625, 0.75]
    assert curve.wins_anchor is not None
    assert [own.mean for own in curve.wins_anchor] == [0.375, 0.5, 0.5]
    assert paired_curve(table({"r": scores}, (0.0, 1.5, 2.0)), "r").wins_anchor is None


def test_a_gap_is_no_pair() -> None:
    """Where images are missing, a lam's change and wins are those of a table without their pairs."""
    run = sweep({"r": RISE}, prompts=6)
    scores = run.scores["r"].copy()
    scores[4:, :, 3] = np.nan  # two prompts lack a lam
    scores[:, 2:, 5] = np.nan  # and a lam two seeds
    scores[0, 0, 0] = np.nan  # and a reference its image
    curve = paired_curve(table({"r": scores}, LAMS), "r")
    assert curve.pairs == (23, 23, 23, 15, 23, 11, 23)
    whole = scores[:4, :, [0, 3]]
    whole[0, 0] = np.nan
    alone = paired_curve(table({"r": whole}, (0.0, 1.0)), "r")
    for found, wanted in ((curve.change[3], alone.change[1]), (curve.wins[3], alone.wins[1])):
        assert (found.mean, found.low, found.high) == pytest.approx((wanted.mean, wanted.low, wanted.high), rel=1e-4)


def test_a_lam_without_any_image_is_unknown() -> None:
    scores = sweep({"r": RISE}).scores["r"].copy()
    scores[:, :, 2] = np.nan
    curve = paired_curve(table({"r": scores}, LAMS), "r")
    assert np.isnan(curve.change[2].mean)
    assert (curve.change[2].low, curve.change[2].high, curve.pairs[2]) == (-np.inf, np.inf, 0)
    assert np.isfinite([own.low for index, own in enumerate(curve.change) if index != 2]).all()


def test_what_can_be_lost_is_bounded_where_scores_are() -> None:
    """From the best prompt of the reference down to the lowest score, from the worst up to the highest."""
    counts = (np.random.default_rng(0).random((20, 2, 3)) < 0.7).astype(float)
    counts[:5, :, 0], counts[5:, 0, 0], counts[5:, 1, 0] = [0, 1], 1, 0  # one image of two passes
    counted, measured = table({"r": counts}, (0.0, 1.0, 2.0)), sweep({"r": RISE})
    changes = paired_changes(counted, "r")
    assert reference_range(counted, "r") == (0.5, 0.5)
    np.testing.assert_allclose((changes.lowest, changes.highest), (3 * [-0.5], 3 * [0.5]))
    counts[7, :, 0], counts[9, :, 0] = 1, 0  # a prompt of which both pass could lose all, one of neither gain it
    changes = paired_changes(table({"r": counts}, (0.0, 1.0, 2.0)), "r")
    np.testing.assert_allclose((changes.lowest, changes.highest), (3 * [-1], 3 * [1]))
    assert np.isnan((paired_changes(measured, "r").lowest[1:], paired_changes(measured, "r").highest[1:])).all()
    by_prompt = measured.scores["r"][:, :, 0].mean(axis=1)
    assert reference_range(measured, "r") == pytest.approx((by_prompt.min(), by_prompt.max()))
    floored = dataclasses.replace(measured, rewards={"r": RewardInfo(floor=-9.0)})
    np.testing.assert_allclose(paired_changes(floored, "r").lowest, -9 - by_prompt.max(), rtol=1e-9)
    np.testing.assert_allclose(paired_changes(floored, "r", -5).lowest, -5 - by_prompt.max(), rtol=1e-9)
    assert np.isnan(paired_changes(floored, "r").highest[1:]).all()


def test_the_lowest_and_highest_score_are_known_of_counts_or_declared() -> None:
    counts = np.random.default_rng(0).integers(2, 5, (20, 2, 3)).astype(float)
    counted, measured = table({"r": counts}, (0.0, 1.0, 2.0)), sweep({"r": RISE})
    assert score_bounds(counted, "r") == (0, 4)  # 0 counts as seen
    assert score_bounds(table({"r": -counts}, (0.0, 1.0, 2.0)), "r") == (-4, 0)
    assert np.isnan(score_bounds(measured, "r")).all()
    assert score_bounds(counted, "r", -1) == (-1, 4)
    low, high = score_bounds(measured, "r", -9)
    assert low == -9
    assert np.isnan(high)
    none = score_bounds(table({"r": np.zeros((4, 1, 2))}, (0.0, 1.0)), "r")
    assert none[0] < 0 < none[1]


@pytest.mark.parametrize(
    ("scores", "discrete"),
    [
        (np.random.default_rng(0).random((9, 2, 4)) < 0.5, True),
        (np.random.default_rng(0).integers(0, 5, (9, 2, 4)), True),
        (np.random.default_rng(0).normal(size=(9, 2, 4)), False),
        (np.random.default_rng(0).normal(size=(9, 2, 1)) * [1, 1, 2, 3], False),  # the same images at two lams
        (np.random.default_rng(0).normal(size=(9, 2, 1)) + (np.random.default_rng(1).random((9, 2, 4)) < 0.3), True),
    ],
    ids=["counts", "levels", "measures", "same-images", "ties"],
)
def test_counts_are_distinguished_from_measures(scores: Floats, discrete: bool) -> None:
    assert is_discrete(np.asarray(scores, dtype=float), 0) == discrete


def test_beta_is_the_anchors_over_lam() -> None:
    run = sweep({"r": RISE})
    assert [equivalent_beta(run, lam) for lam in (-1, 0, 0.5, 2)] == [None, None, 0.2, 0.05]
    assert equivalent_beta(dataclasses.replace(run, anchor_beta=None), 1) is None


@pytest.mark.parametrize(
    ("run", "reward", "words"),
    [
        (sweep({"proxy": RISE}), "other", "no reward 'other'.*proxy"),
        (sweep({"proxy": RISE[:1]}, lams=(0.0,)), "proxy", "one lam only"),
        (sweep({"proxy": RISE[1:]}, lams=LAMS[1:]), "proxy", "lam = 0, is not among"),
        (sweep({"proxy": RISE}, prompts=1), "proxy", "one prompt only"),
        (dataclasses.replace(sweep({"proxy": RISE}), unscored={"gold": 5}), "gold", "5 of 336 images have no score"),
    ],
)
def test_a_table_that_cannot_answer_is_refused(run: Results, reward: str, words: str) -> None:
    with pytest.raises(ResultsError, match=words):
        paired_curve(run, reward)
