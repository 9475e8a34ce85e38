import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.trajectory.tables import gaussian

from deradiff import testbed
from deradiff.analysis.calibrate import calibrate
from deradiff.anchor.source import card_of, write_card
from deradiff.errors import AnchorError, ResultsError
from deradiff.results import Results

BETA = 0.4


def table(bend: float = 0.0, noise: float = 0.5, rng_seed: int = 0, prompts: int = 16, seeds: int = 12) -> Results:
    """L = r / BETA + bend r² + const(prompt) + noise, of which a part is shared by the images of a prompt."""
    rng = np.random.default_rng(rng_seed)
    reward: NDArray[np.float64] = rng.normal(size=(prompts, seeds, 1)) + rng.normal(size=(prompts, 1, 1))
    slope = 1 / BETA + 0.2 * noise * rng.normal(size=(prompts, 1, 1))
    log_ratio = slope * reward + bend * reward**2 + 5 * rng.normal(size=(prompts, 1, 1))
    log_ratio = log_ratio + noise * rng.normal(size=reward.shape)
    made = gaussian((0.0,), prompts=prompts, seeds=seeds)
    return dataclasses.replace(
        made, scores={"r": reward}, paths={**made.paths, "implicit_reward": log_ratio}, anchor_beta=0.3
    )


def test_the_beta_of_an_exact_anchor_comes_back() -> None:
    found = calibrate(table(noise=0.0), "r", 0.3)
    assert found.beta == pytest.approx(BETA)
    assert found.r2 == pytest.approx(1.0)
    assert found.nominal == 0.3
    assert found.slopes == (pytest.approx(1 / BETA), pytest.approx(1 / BETA))
    assert (found.images, found.prompts) == (16 * 12, 16)


def test_intervals_cover_though_images_of_a_prompt_are_alike_and_linearity_is_seldom_rejected() -> None:
    found = [calibrate(table(rng_seed=seed, noise=2.0), "r") for seed in range(200)]
    covered = np.mean([own.slope_interval[0] <= 1 / BETA <= own.slope_interval[1] for own in found])
    assert 0.90 < covered < 0.99
    assert np.mean([own.linearity_p < 0.05 for own in found]) < 0.12


def test_what_is_constant_within_a_prompt_does_not_matter() -> None:
    given = table()
    shifted = dataclasses.replace(
        given, paths={**given.paths, "implicit_reward": given.paths["implicit_reward"] + np.arange(16)[:, None, None]}
    )
    assert calibrate(shifted, "r").slope == pytest.approx(calibrate(given, "r").slope)


def test_an_anchor_that_saturates_gets_no_beta() -> None:
    found = calibrate(table(bend=-0.3), "r")
    assert found.beta is None
    assert found.beta_interval is None
    assert found.refusal
    assert "no one beta" in found.refusal
    assert found.slopes[0] > 1.5 * found.slopes[1]
    exact = table(bend=-0.3, noise=0.0)
    expected = 1 / BETA - 2 * 0.3 * np.quantile(exact.scores["r"], [0.1, 0.9])
    np.testing.assert_allclose(calibrate(exact, "r").slopes, expected)


@pytest.mark.parametrize("levels", [(0.0, 1.0), (-2.0, 2.0), (0.3, 0.7)])
def test_of_a_reward_of_two_values_there_is_no_bend_to_test(levels: tuple[float, float]) -> None:
    reward = np.random.default_rng(0).choice(levels, size=(16, 12, 1))
    given = table()
    paths = {**given.paths, "implicit_reward": reward / BETA}
    found = calibrate(dataclasses.replace(given, scores={"r": reward}, paths=paths), "r")
    assert found.beta == pytest.approx(BETA)
    assert found.slopes == (pytest.approx(1 / BETA),) * 2
    assert found.linearity_p == 1


def test_an_anchor_of_another_reward_gets_no_beta() -> None:
    given = table()
    other = dataclasses.replace(given, scores={"r": np.random.default_rng(1).normal(size=given.images.shape)})
    found = calibrate(other, "r")
    assert found.beta is None
    assert "doesn't rise" in str(found.refusal)


def test_what_can_not_be_calibrated_is_refused() -> None:
    given = table()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"scores": {"r": np.ones(given.images.shape)}}, "the same for all images of a prompt"),
        ({"paths": {}}, "recorded no implicit reward L"),
        ({"lams": (0.5,)}, "the reference, lam = 0, are needed"),
        ({"scores": {}}, "no reward 'r' here"),
        ({"scores": {}, "unscored": {"r": 9}}, "9 of .* images have no score of r"),
    ]
    for change, told in cases:
        with pytest.raises(ResultsError, match=told):
            calibrate(dataclasses.replace(given, **change), "r")
    assert "no beta from 4 prompts: expected 5 or more" in str(calibrate(table(prompts=4), "r").refusal)
    with pytest.raises(ResultsError, match="two or more images a prompt"):
        calibrate(table(seeds=1), "r")


def test_a_card_learns_and_keeps_what_it_said(tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    shutil.copytree(testbed.anchor_path(), anchor)
    before = dict(card_of(anchor))
    weights = {file.name: file.read_bytes() for file in anchor.iterdir()}
    written = write_card(anchor, {"behaves_like": {"r": {"beta": 0.3}}})
    assert card_of(anchor) == {**before, "behaves_like": {"r": {"beta": 0.3}}}
    write_card(anchor, {"note": 1})
    assert json.loads(written.read_text()) == {"behaves_like": {"r": {"beta": 0.3}}, "note": 1}
    assert {name: (anchor / name).read_bytes() for name in weights} == weights
    with pytest.raises(AnchorError, match="expected an anchor in a folder on this machine"):
        write_card("some/hub-id", {})


def test_a_lora_beside_others_has_a_card_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copy(next(testbed.anchor_path().glob("*.safetensors")), tmp_path / f"{name}.safetensors")
    write_card(tmp_path / "one.safetensors", {"beta": 7.0})
    assert card_of(tmp_path / "one.safetensors")["beta"] == 7.0
    assert card_of(tmp_path / "two.safetensors")["beta"] == 0.2
