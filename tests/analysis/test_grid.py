"""Which lams to sample next."""

from types import SimpleNamespace
from typing import Any

import pytest

from deradiff.analysis.grid import suggest_lams


def rising(*lams: float) -> Any:
    """A curve that rises by more than its limits from lam to lam."""
    return SimpleNamespace(
        lams=lams, change=[SimpleNamespace(mean=lam, low=lam - 0.001, high=lam + 0.001) for lam in lams]
    )


@pytest.mark.parametrize(
    ("lams", "best", "expected"),
    [
        ((0.0, 0.1, 0.2, 0.3), 1, []),  # steps of 0.1 are fine enough, rounding aside
        ((0.0, 0.12, 0.24, 0.36), 1, [0.06, 0.18]),
        ((0.0, 0.1, 0.35, 0.5), 1, [0.225]),
        ((0.0, 0.25, 0.5), 2, [0.75, 1.0]),  # at the end: beyond it
        ((0.0, 0.25, 0.5), 0, [0.125]),
        ((0.0, 0.01), 1, [0.11, 0.21]),  # by no less than fine steps
        ((-1.0, 1.0), 1, [2.0]),  # from 0, not from the other side of it; no further than 2
        ((0.0, 1.0, 2.0), 2, []),
        ((-0.5, -0.25, 0.0), 2, [0.5, 1.0]),  # where alignment is
        ((-0.5, -0.25, 0.0), 0, [0.5, 1.0]),
        ((-0.5, 0.0, 0.5), 1, [0.25]),  # never away from the anchor
        ((-0.5, 0.0, 0.5), 0, []),
    ],
)
def test_steps_are_halved_where_they_are_wider_than_a_tenth(
    lams: tuple[float, ...], best: int, expected: list[float]
) -> None:
    assert suggest_lams([rising(*lams)], [True] * len(lams), best) == expected


def test_neighbours_that_differ_by_no_more_than_noise_need_nothing_between() -> None:
    flat = SimpleNamespace(lams=(0.0, 0.5, 1.0), change=[SimpleNamespace(mean=0.1, low=-1.0, high=1.0)] * 3)
    curves: Any = [flat]
    assert suggest_lams(curves, [True, True, True], 1) == []
    assert suggest_lams(curves, [True, True, False], 1) == [0.75]


@pytest.mark.parametrize("best", [-0.4, 0.0, 0.07, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("start", [(0.0, 1.0), (0.0, 0.02), (-0.5, -0.25, 0.0), (-1.0, 0.0, 4.0)])
def test_following_the_advice_again_and_again_comes_to_an_end(start: tuple[float, ...], best: float) -> None:
    """Guards hold up to ``best``: the largest lam within it is taken each time."""
    lams, more = start, []
    for _ in range(40):
        held = [lam <= max(best, 0) for lam in lams]
        index = max((at for at, lam in enumerate(lams) if lam <= best), default=0)
        more = suggest_lams([rising(*lams)], held, index)
        if not more:
            return
        assert min(more) > 0
        assert not set(more) & set(lams)
        lams = tuple(sorted({*lams, *more}))
    pytest.fail(f"still asked for {more}")
