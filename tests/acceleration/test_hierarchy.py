"""Interpolation over lam is exact where a polynomial of its degree is all there is, on any grid of lams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deradiff.acceleration.hierarchy import LamHierarchy

GRIDS = {
    "one": [0.7],
    "two": [0.0, 1.0],
    "three": [0.0, 0.5, 1.0],
    "17": torch.linspace(0, 2, 17).tolist(),
    "33": torch.linspace(0, 2, 33).tolist(),
    "inside": [0.3, 0.4, 0.55, 0.7],
    "beyond": [1.5, 2.0, 3.0, 5.0, 8.0],
    "before 0": [-1.0, -0.5, 0.0, 0.5, 1.0, 1.25],
    "uneven": [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.7, 3.0, 3.1, 3.2],
}
grids = st.lists(st.integers(-100, 400), min_size=1, max_size=40, unique=True).map(
    lambda values: [value / 100 for value in sorted(values)]
)


@settings(max_examples=100, deadline=None)
@given(grids)
def test_every_lam_is_a_root_or_stands_on_one_rung_of_coarser_ones(lams: list[float]) -> None:
    hierarchy = LamHierarchy(lams)
    known = set(hierarchy.base.nonzero()[:, 0].tolist())
    nearest = {min(range(len(lams)), key=lambda place: abs(lams[place] - end)) for end in (0.0, 1.0)}
    assert known == {0, len(lams) - 1} | nearest
    for place, sources, weights in hierarchy.levels:
        assert place not in known
        assert set(sources) <= known
        assert min(4, int(hierarchy.base.sum())) <= len(set(sources)) == len(sources) <= 4
        assert min(sources) < place < max(sources)
        assert sum(weights) == pytest.approx(1)
        known.add(place)
    assert known == set(range(len(lams)))


@pytest.mark.parametrize("name", GRIDS)
def test_polynomials_are_reproduced(name: str) -> None:
    lams = torch.tensor(GRIDS[name], dtype=torch.float64)
    hierarchy, coefficients = LamHierarchy(lams.tolist()), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    everywhere, base = torch.ones(3, len(lams), dtype=torch.bool), hierarchy.base.expand(3, -1)
    degree = min((len(sources) for _, sources, _ in hierarchy.levels), default=1) - 1
    exact = _polynomial(coefficients[:, :, : degree + 1], lams)
    for cells in (everywhere, base, base | (torch.rand(3, len(lams)) < 0.5)):
        found = torch.where(cells[None, :, :, None], exact, torch.nan)
        torch.testing.assert_close(hierarchy.predicted(found, cells), exact)
    if max((len(sources) for _, sources, _ in hierarchy.levels), default=0) == 4:
        cubic = _polynomial(coefficients, lams)
        predicted = hierarchy.predicted(cubic, everywhere)
        for place, sources, _ in hierarchy.levels:
            if len(sources) == 4:
                torch.testing.assert_close(predicted[:, :, place], cubic[:, :, place])


def _polynomial(coefficients: Tensor, lams: Tensor) -> Tensor:
    """(branches, I, degree + 1, ...) at (L,)."""
    powers = torch.stack([lams**k for k in range(coefficients.shape[2])], dim=1)
    return torch.einsum("bikn,lk->biln", coefficients, powers)


def test_a_rung_stands_on_what_was_found_there_rather_than_on_what_was_said() -> None:
    hierarchy = LamHierarchy(GRIDS["17"])
    found = torch.zeros(1, 2, 17, 1)
    middle, above = (
        hierarchy.levels[0][0],
        next(p for p, sources, _ in hierarchy.levels if hierarchy.levels[0][0] in sources),
    )
    cells = hierarchy.base.repeat(2, 1)
    found[:, 0, middle], cells[0, middle] = 1.0, True  # one image ran there, and is no longer 0 as at the base
    predicted = hierarchy.predicted(found, cells)
    assert predicted[0, 0, middle] == 0
    assert predicted[0, 0, above] > 0.1
    assert not predicted[0, 1].any()
