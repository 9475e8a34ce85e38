"""Which rows make the headline, and what is said beside it."""

import json
from dataclasses import replace

import pytest
from tests.compare.synthetic import scores, table

from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS, as_json

KEYS = (
    "share_of_spread_deradiff",
    "share_of_spread_deradiff_extrapolated",
    "share_of_spread_weights",
    "share_of_spread_null",
    "seed_noise_share",
)


def test_shares_are_the_largest_over_their_ranges_of_beta() -> None:
    """Of betas .25 to 16 with an anchor at 1: 16 lies in neither range, .25 and .5 in the wider one alone."""
    own = table()
    assert own.share(DERADIFF) == pytest.approx(0.1 / 5)
    assert own.share(DERADIFF, extrapolated=True) == pytest.approx(1.5 / 5)
    assert own.share(WEIGHTS) == pytest.approx(0.3 / 5)
    assert own.share(DERADIFF, same_seed=True) is None
    same = table(replace(scores({DERADIFF: [1.5, 0.2, 0.0, -0.1, 0.05, 3.0]}), same_seed=(1,) * 6))
    assert same.headline["share_of_spread_deradiff_same_seed"] == pytest.approx(
        0.35 / 5
    )  # off by -.1, and half the gap
    assert same.headline["share_of_spread_deradiff_same_seed_extrapolated"] == pytest.approx(1.25 / 5)
    assert table(anchor_beta=100.0).share(DERADIFF) is None
    assert table(anchor_beta=2.0).share(DERADIFF) == pytest.approx(3 / 5)  # 16 is 8 times 2, which belongs to it


def test_the_json_begins_with_the_first_table() -> None:
    found = json.loads(json.dumps(as_json([table(), table(reward="other", anchor_beta=2.0)])))
    assert tuple(found)[:5] == KEYS
    assert tuple(found)[5:7] == tuple(f"share_of_spread_deradiff_same_seed{more}" for more in ("", "_extrapolated"))
    assert [found[key] for key in KEYS] == pytest.approx([0.02, 0.3, 0.06, 0.3, 0.1])
    assert [own["share_of_spread_deradiff"] for own in found["tables"]] == pytest.approx([0.02, 0.6])
    assert len(found["rows"]) == 2 * 5 * len(found["betas"])
    first = found["rows"][1]
    assert (first["arm"], first["beta"], first["reward"]) == (DERADIFF, 0.5, "warmth")
    assert first["image_distance"] == pytest.approx(0.1)
    assert "scratch_mean" in first  # results.json keeps its names
    assert "scratch_means" in found["tables"][0]
    assert found["rows"][24]["image_distance"] is None  # the null predictor draws nothing


def test_percentages_of_the_mean_are_averaged_over_betas() -> None:
    own = table(scores({DERADIFF: [1.0, 1.0], WEIGHTS: [0, 0]}, means=(10, 5)))
    means = [sum(seeds) / 2 for seeds in own.retrained_means]
    assert own.percent(DERADIFF) == pytest.approx(50 * (1 / means[0] + 1 / means[1]))


def test_warnings_say_what_to_doubt() -> None:
    nothing = [0.0] * 6
    flat = table(scores(dict.fromkeys((DERADIFF, WEIGHTS, ANCHOR, REFERENCE), nothing), means=(0,) * 6))
    assert any("can't judge an emulation" in warning for warning in flat.warnings)
    sound = table(prompts=40)
    assert len(sound.warnings) == 1
    assert "null predictor" in sound.warnings[0]
    assert any("Only 3 prompts" in warning for warning in table(prompts=3).warnings)
    assert any("Seed noise is unknown" in warning for warning in table(seed_noise=None).warnings)
    assert any("one of the retrained models" in warning for warning in table(own_model=True).warnings)
