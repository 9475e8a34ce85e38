"""Spot checks: how many, which, what tolerance they lead to, and the interval of their mean."""

import json

import numpy as np
import pytest
from tests.sweep.subject import make_plan

from deradiff.sweep import Plan
from deradiff.sweep.check import Checks, estimated_error


@pytest.fixture
def plan(folders: tuple[str, str]) -> Plan:
    return make_plan(folders, mode="adaptive", quality=0.02, seeds=list(range(40)), batch_size=2)


def told(checks: Checks, plan: Plan, ratio: float) -> int:
    """A batch whose checked image errs by a multiple of the tolerance; says how many were checked."""
    batch = plan.batch(checks.pairs)
    wanted = checks.wanted(batch)
    tolerance = checks.tolerance
    assert tolerance is not None
    info = {
        "calls": 1,
        "images": batch.count(plan),
        "calls_published": 2 * plan.steps * batch.count(plan),
        "tolerance": tolerance,
        "checks": [{**check, "error": ratio * tolerance} for check in wanted],
    }
    checks.learn(json.loads(json.dumps(info)))  # as the journal tells it
    return len(wanted)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_the_tolerance_goes_where_errors_are_what_was_asked_for(plan: Plan, ratio: float) -> None:
    checks, before = Checks(plan), 0.02
    assert checks.tolerance == before
    for _ in range(30):
        told(checks, plan, ratio)
        after = checks.tolerance
        assert after is not None
        assert (after - before) * (1 - ratio) >= 0
        before = after
    assert before * ratio == pytest.approx(0.02, rel=0.6 * abs(1 - 1 / ratio) + 1e-9)


def test_the_tolerance_stays_within_a_range(plan: Plan) -> None:
    for ratio, bound in ((1e6, 0.02 / 8), (0.0, 0.02 * 8)):
        checks = Checks(plan)
        for _ in range(60):
            told(checks, plan, ratio)
        assert checks.tolerance is not None
        assert min(bound, 0.02) <= checks.tolerance <= max(bound, 0.02)
    assert Checks(plan.model_copy(update={"quality": None})).tolerance == 0.01


def test_some_images_are_checked_at_first_and_a_share_of_them_later(plan: Plan) -> None:
    checks = Checks(plan)
    checked = [told(checks, plan, 1.0) for _ in range(65)]
    assert checks.pairs == 65
    assert checked[:4] == [1, 1, 1, 1]
    assert sum(checked) == 4 + 64 // 16


def test_an_image_is_drawn_by_the_index_of_its_batch(plan: Plan) -> None:
    wanted = [Checks(plan).wanted(plan.batch(index))[0]["cell"] for index in range(20)]
    assert wanted == [Checks(plan).wanted(plan.batch(index))[0]["cell"] for index in range(20)]
    assert all(tuple(cell) in set(plan.batch(index).cells(plan)) for index, cell in enumerate(wanted))
    assert len({cell[3] for cell in wanted}) == len(plan.lams)


def test_only_the_adaptive_mode_checks(folders: tuple[str, str]) -> None:
    for mode in ("exact", "reuse", "weights"):
        plan = make_plan(folders, mode=mode)
        assert Checks(plan).tolerance is None
        assert Checks(plan).wanted(plan.batch(0)) == []


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
