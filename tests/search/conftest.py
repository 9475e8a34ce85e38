"""Searches in a second or two."""

from functools import partial

import pytest

from deradiff.search import search, surrogate
from deradiff.search.search import estimate_lam

DRAWS = 12


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> int:
    """Fewer draws, and kernels fitted to less; how many draws."""
    monkeypatch.setattr(search, "estimate_lam", partial(estimate_lam, draws=DRAWS))
    monkeypatch.setattr(surrogate, "FIT", 30)
    return DRAWS
