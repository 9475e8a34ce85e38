"""Searches in a second or two."""

from collections.abc import Iterator
from functools import partial

import pytest
from tests.runs.subject import save_models

from deradiff.search import kernels, search, state, surrogate
from deradiff.search.search import estimate_lam

DRAWS = 12


@pytest.fixture(scope="module")
def quick() -> Iterator[int]:
    """Fewer draws, and kernels fitted to less; how many draws."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (search, state):
            patched.setattr(module, "estimate_lam", partial(estimate_lam, n_samples=DRAWS))
        patched.setattr(surrogate, "FIT", 30)
        patched.setattr(kernels, "SIZES", "fixed")
        patched.setattr(kernels, "LENGTHS", "fixed")
        yield DRAWS


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A reference and an anchor on disk."""
    return save_models(tmp_path_factory.mktemp("models"))
