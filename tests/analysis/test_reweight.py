import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from tests.trajectory.tables import gaussian

from deradiff.analysis.curves import paired_curve
from deradiff.analysis.reweight import reweight
from deradiff.errors import ResultsError

GRID = (0.0, 0.3, 0.7, 1.0)


@pytest.mark.parametrize("sampled", [(0.0,), (0.0, 1.0), (0.5,), (0.0, 0.5, 1.0), (1.0,)])
def test_the_curve_is_that_of_the_mixture(sampled: Sequence[float]) -> None:
    table = gaussian(sampled, seeds=400)
    curve = reweight(table, "r", GRID)
    level = table.scores["r"][:, :, 0].mean() - sampled[0]
    for lam, score, change, kl in zip(GRID, curve.score, curve.change, curve.kl, strict=True):
        assert score.mean == pytest.approx(level + lam, abs=0.1)
        assert change.mean == pytest.approx(lam, abs=0.1)
        assert change.low <= change.mean <= change.high
        assert kl == pytest.approx(0.5 * lam**2, abs=0.04)
    assert curve.change[0].mean == 0
    assert all(curve.trusted)
    assert curve.sampled == tuple(sampled)


def test_images_at_the_reference_alone_show_of_it_what_they_are() -> None:
    table = gaussian((0.0, 1.0))
    curve = reweight(table, "r", [0.0], sampled=[0.0])
    assert curve.score[0].mean == pytest.approx(paired_curve(table, "r").score[0])
    assert curve.ess == (pytest.approx(1.0),)
    assert curve.kl == (pytest.approx(0.0),)


def test_intervals_cover() -> None:
    covered = 0
    for rng_seed in range(80):
        change = reweight(gaussian((0.0, 1.0), prompts=8, seeds=40, rng_seed=rng_seed), "r", [0.5]).change[0]
        covered += change.low <= 0.5 <= change.high
    assert covered > 0.9 * 80


def test_what_is_too_far_is_not_trusted_and_more_lams_help() -> None:
    far = reweight(gaussian((0.0,), shift=3.0), "r", GRID)
    assert far.trusted == (True, True, False, False)
    assert list(far.ess) == sorted(far.ess, reverse=True)
    both = reweight(gaussian((0.0, 1.0), shift=3.0), "r", GRID)
    assert all(both.trusted)


def test_few_images_are_not_trusted_far_from_where_they_are() -> None:
    """Of four images one alone has a share of 25%."""
    few = reweight(gaussian((0.0,), shift=10.0, seeds=4), "r", GRID)
    assert min(few.ess) > 0.2
    assert few.trusted == (True, False, False, False)


def test_the_kl_of_the_reference_to_itself_is_nothing() -> None:
    for sampled in ((0.0, 1.0), (0.5,)):
        assert reweight(gaussian(sampled, seeds=3), "r", [0.0]).kl[0] == pytest.approx(0.0, abs=1e-12)


def test_lams_that_paths_say_nothing_of_are_left_out() -> None:
    table = gaussian((0.0, 1.0, 2.0, 4.0))
    assert reweight(table, "r", GRID).sampled == (0.0, 1.0)
    corrected = np.full(table.images.shape, np.nan)
    corrected[:, :, 1] = 4.0
    moved = dataclasses.replace(table, paths={**table.paths, "ess": corrected})
    assert reweight(moved, "r", GRID).sampled == (0.0,)
    with pytest.raises(ResultsError, match=r"lam = 1 can't be reweighted; use some of \[0.0\]"):
        reweight(moved, "r", GRID, sampled=[0.0, 1.0])


def test_what_can_not_be_answered_is_refused() -> None:
    table = gaussian((0.0, 1.0, 2.0))
    with pytest.raises(ResultsError, match="9 of 6000 images have no score of r"):
        reweight(dataclasses.replace(table, scores={}, unscored={"r": 9}), "r", GRID)
    for lams, sampled in (([1.2], None), ([-0.1], None), ([0.5], [0.0, 2.0])):
        with pytest.raises(ResultsError, match=r"is beyond \[0, 1\]"):
            reweight(table, "r", lams, sampled)
    with pytest.raises(ResultsError, match="no reward 'q' here; expected one of: r;"):
        reweight(table, "q")
    with pytest.raises(ResultsError, match=r"lam = 0.5 was not swept"):
        reweight(table, "r", sampled=[0.5])
    with pytest.raises(ResultsError, match="recorded no implicit reward L"):
        reweight(dataclasses.replace(table, paths={"q": table.paths["q"]}), "r")
    with pytest.raises(ResultsError, match="one prompt only"):
        reweight(gaussian((0.0, 1.0), prompts=1), "r")
    with pytest.raises(ResultsError, match="no images at a lam in"):
        reweight(gaussian((2.0, 3.0)), "r")
