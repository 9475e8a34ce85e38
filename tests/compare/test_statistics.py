"""Laws of the figures, on scores whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from tests.compare.synthetic import PROMPTS, SEEDS, scores

from deradiff.compare.statistics import NULL, Row, Scores, rows, seed_noise, spread
from deradiff.errors import ResultsError

RNG = np.random.default_rng(7)


def at(found: Scores, arm: str) -> list[Row]:
    return [row for row in rows(found) if row.arm == arm]


def test_an_arm_that_is_the_truth_errs_by_nothing() -> None:
    for row in at(scores({"same": [0.0] * 6}), "same"):
        assert row.error.mean == pytest.approx(0)
        assert row.share_of_spread == pytest.approx(0)
        assert row.seed_noise_ratio == pytest.approx(0)
        assert row.percent_of_mean == pytest.approx(0, abs=1e-9)
        assert row.win_rate is not None
        assert row.win_rate.mean == 0.5  # above one training seed, below the other


def test_known_errors_are_found() -> None:
    errors = [1.0, -0.5, 0.25, 0.0, 0.1, -2.0]
    found = scores({"off": errors}, seed_gap=0.5)
    for row, error in zip(at(found, "off"), errors, strict=True):
        assert row.error.mean == pytest.approx(error)
        assert row.share_of_spread == pytest.approx(error / 5)  # retrained means are 5 to 0
        assert row.seed_noise_ratio == pytest.approx(abs(error) / 0.5)
        assert row.mean - row.retrained_mean == pytest.approx(error)
        assert row.percent_of_mean == pytest.approx(100 * abs(error) / abs(row.retrained_mean))


def test_the_null_predictor_errs_by_half_the_spread_at_the_ends() -> None:
    shares = [row.share_of_spread for row in at(scores({}), NULL)]
    assert shares == pytest.approx([-0.5, -0.3, -0.1, 0.1, 0.3, 0.5])
    assert all(row.win_rate is None for row in at(scores({}), NULL))


def test_the_order_of_prompts_and_training_seeds_does_not_matter() -> None:
    found = scores({"off": [0.3] * 6})
    noise = RNG.normal(size=found.arms["off"].shape)
    found = replace(found, arms={"off": found.arms["off"] + noise})
    order = RNG.permutation(PROMPTS)
    mixed = Scores(
        betas=found.betas,
        retrained=tuple(table[::-1][:, order] for table in found.retrained),
        arms={"off": found.arms["off"][:, order]},
    )
    for one, other in zip(rows(found), rows(mixed), strict=True):
        assert one.error.low == pytest.approx(other.error.low)
        assert one.share_of_spread == pytest.approx(other.share_of_spread)
        if one.win_rate is not None and other.win_rate is not None:
            assert one.win_rate.low == pytest.approx(other.win_rate.low)
        assert (one.win_rate is None) == (other.win_rate is None)


def test_pairs_matter() -> None:
    """With the same scores dealt to other seeds the interval is that of unpaired images: far wider."""
    found = scores({"off": [0.3] * 6})
    found = replace(found, arms={"off": found.arms["off"] + 1e-3 * RNG.normal(size=found.arms["off"].shape)})
    shuffled = replace(found, arms={"off": found.arms["off"][:, ::-1, ::-1]})
    narrow, wide = (at(own, "off")[0].error for own in (found, shuffled))
    assert narrow.high - narrow.low < 0.01 * (wide.high - wide.low)


def test_the_unit_of_the_reward_does_not_matter() -> None:
    found = scores({"off": [0.3, 0.2, 0.1, 0, -0.1, -0.2]})
    scaled = Scores(
        betas=found.betas,
        retrained=tuple(40 * table for table in found.retrained),
        arms={arm: 40 * table for arm, table in found.arms.items()},
    )
    for one, other in zip(rows(found), rows(scaled), strict=True):
        assert other.error.mean == pytest.approx(40 * one.error.mean)
        assert other.share_of_spread == pytest.approx(one.share_of_spread)
        assert other.seed_noise_ratio == pytest.approx(one.seed_noise_ratio)
        assert other.percent_of_mean == pytest.approx(one.percent_of_mean)


def test_intervals_cover_the_truth_as_often_as_they_say_or_more() -> None:
    """Errors that differ by prompt (the clusters) more than by seed; a tally of 100 intervals."""
    covered, trials = 0, 50
    for _ in range(trials):
        noise = RNG.normal(size=(2, 8, SEEDS))
        effect = RNG.normal(size=(2, 8, 1))
        found = Scores(
            betas=(1.0, 2.0),
            retrained=tuple(noise[:, None]),
            arms={"off": noise + 0.3 + effect + 0.5 * RNG.normal(size=noise.shape)},
        )
        covered += sum(row.error.low <= 0.3 <= row.error.high for row in at(found, "off"))
    assert binomtest(covered, 2 * trials, 0.95, alternative="less").pvalue > 1e-3


def test_a_spread_that_is_noise_is_seldom_called_significant() -> None:
    """The largest less the smallest of ten means is above 0 by chance alone; 45 pairs are corrected for."""
    trials = 40
    false = sum(
        spread(Scores(betas=tuple(range(1, 11)), retrained=tuple(RNG.normal(size=(10, 1, 40, 1))), arms={})).significant
        for _ in range(trials)
    )
    assert binomtest(false, trials, 0.05, alternative="greater").pvalue > 1e-3
    assert spread(scores({})).significant


def test_seed_noise_is_the_mean_difference_of_two_training_seeds() -> None:
    assert seed_noise(scores({}, seed_gap=0.5)) == pytest.approx(0.5)
    three = np.stack([np.full((3, 2), value) for value in (0.0, 1.0, 4.0)])  # differences 1, 3, 4
    alone = np.zeros((1, 3, 2))
    assert seed_noise(Scores(betas=(1, 2), retrained=(three, alone), arms={})) == pytest.approx(8 / 3)
    # Images that differ either way by seed, and means that don't: nothing that an error of means is held against.
    wild = RNG.normal(size=(1, 3, 2))
    both = np.concatenate([wild, wild[:, :, ::-1]])
    assert seed_noise(Scores(betas=(1, 2), retrained=(both, alone), arms={})) == pytest.approx(0)
    unknown = Scores(betas=(1, 2), retrained=(alone, alone + 1), arms={"off": np.zeros((2, 3, 2))})
    assert seed_noise(unknown) is None
    assert all(row.seed_noise_ratio is None for row in rows(unknown))


def test_the_same_seed_is_distinguished_from_the_mean_over_seeds() -> None:
    """Off from the mean as the second training seed is, an arm errs by nothing against that seed."""
    found = scores({"off": [0.25] * 6}, seed_gap=0.5)
    assert all(row.same_seed_share is None for row in at(found, "off"))
    for place, expected in ((1, 0.0), (0, 0.5 / 5)):
        same = replace(found, same_seed=(place,) * 6)
        assert [row.same_seed_share for row in at(same, "off")] == pytest.approx([expected] * 6)
    flat = replace(scores({"off": [0.25] * 6}, means=(0,) * 6), same_seed=(0,) * 6)
    assert all(row.same_seed_share is None for row in at(flat, "off"))


def test_no_spread_no_share() -> None:
    found = scores({"off": [1.0] * 6}, means=(0,) * 6)
    assert not spread(found).significant
    assert all(row.share_of_spread is None for row in at(found, "off"))


def test_tables_that_answer_nothing_are_refused() -> None:
    one = np.zeros((1, 3, 2))
    with pytest.raises(ResultsError, match="2 betas"):
        Scores(betas=(1,), retrained=(one,), arms={})
    with pytest.raises(ResultsError, match="2 prompts"):
        Scores(betas=(1, 2), retrained=(one[:, :1], one[:, :1]), arms={})
    with pytest.raises(ResultsError, match=r"retrained.*\(3, 1\)"):
        Scores(betas=(1, 2), retrained=(one, one[:, :, :1]), arms={})
    with pytest.raises(ResultsError, match=r"off.*\(3, 3, 2\)"):
        Scores(betas=(1, 2), retrained=(one, one), arms={"off": np.zeros((3, 3, 2))})
