"""Spot checks: how many, which, what tolerance they lead to, and the interval of their mean."""

from typing import Any

import numpy as np
import pytest

from deradiff.runs.recipe import Recipe
from deradiff.runs.records import SamplingInfo, SpotCheck
from deradiff.runs.spot_checks import SpotChecks, estimated_error

RECIPE = Recipe(model="m", anchor="a", policy="adaptive", target_error=0.02)
LAMS = (0.0, 0.5, 1.0)


def told(checks: SpotChecks, ratio: float) -> int:
    """A block of one pair whose checked image errs by a multiple of the tolerance; says how many were checked."""
    index, tolerance = checks.select(len(LAMS)), checks.tolerance
    assert tolerance is not None
    own = [] if index is None else [SpotCheck(index=index, error=ratio * tolerance, nfe=1)]
    info = SamplingInfo(nfe=1, nfe_published=1, lams=LAMS, tolerance=tolerance, spot_checks=tuple(own))
    checks.update(SamplingInfo.model_validate_json(info.model_dump_json()), len(LAMS))  # as the journal tells it
    return len(own)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_the_tolerance_goes_where_errors_are_what_was_asked_for(ratio: float) -> None:
    checks, before = SpotChecks(RECIPE), 0.02
    assert checks.tolerance == before
    for _ in range(30):
        told(checks, ratio)
        after = checks.tolerance
        assert after is not None
        assert (after - before) * (1 - ratio) >= 0
        before = after
    assert before * ratio == pytest.approx(0.02, rel=0.6 * abs(1 - 1 / ratio) + 1e-9)


def test_the_tolerance_stays_within_a_range() -> None:
    for ratio, bound in ((1e6, 0.02 / 8), (0.0, 0.02 * 8)):
        checks = SpotChecks(RECIPE)
        for _ in range(60):
            told(checks, ratio)
        assert checks.tolerance is not None
        assert min(bound, 0.02) <= checks.tolerance <= max(bound, 0.02)
    assert SpotChecks(RECIPE.model_copy(update={"target_error": None})).tolerance == 0.01


def test_some_images_are_checked_at_first_and_a_share_of_them_later() -> None:
    checks = SpotChecks(RECIPE)
    checked = [told(checks, 1.0) for _ in range(65)]
    assert checks.pairs == 65
    assert checked[:4] == [1, 1, 1, 1]
    assert sum(checked) == 4 + 64 // 16


def test_which_image_is_checked_follows_from_how_many_blocks_came_before() -> None:
    drawn: list[list[int | None]] = []
    for _ in range(2):
        checks, own = SpotChecks(RECIPE), list[int | None]()
        for _ in range(4):
            own.append(checks.select(len(LAMS)))
            told(checks, 1.0)
        drawn.append(own)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1
    assert all(index is not None and 0 <= index < len(LAMS) for index in drawn[0])


@pytest.mark.parametrize("policy", ["exact", "reuse", "weights"])
def test_only_the_adaptive_policy_checks(policy: Any) -> None:
    checks = SpotChecks(Recipe(model="m", anchor="a", policy=policy))
    checks.update(SamplingInfo(nfe=1, nfe_published=1), 3)
    assert checks.tolerance is None
    assert checks.select(3) is None


def test_the_interval_holds_the_mean_and_covers_as_it_says() -> None:
    assert estimated_error([]) is estimated_error([0.1, 0.2]) is None
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        errors = rng.gamma(4, 0.0025, size=40).tolist()
        found = estimated_error(errors)
        assert found is not None
        mean, low, high = found
        assert mean == pytest.approx(np.mean(errors))
        assert low < mean < high
        assert estimated_error(errors) == found
        hits += low <= 0.01 <= high
    assert 33 <= hits <= 40
