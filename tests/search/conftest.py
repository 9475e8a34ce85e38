"""Searches in a second or two."""

from collections.abc import Iterator
from functools import partial

import pytest
from tests.runs.small_runs import save_models

from deradiff.analysis import recommend
from deradiff.search import kernels, search, state
from deradiff.search.search import estimate_lam

DRAWS = 12


@pytest.fixture(scope="module")
def quick() -> Iterator[int]:
    """Fewer draws, and a kernel that isn't fitted; how many draws."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (search, state):
            patched.setattr(module, "estimate_lam", partial(estimate_lam, n_samples=DRAWS))
        patched.setattr(kernels, "SIZES", "fixed")
        patched.setattr(kernels, "LENGTHS", "fixed")
        yield DRAWS


@pytest.fixture
def no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many prompts would settle a lam isn't worked out: it takes as long as the search."""
    monkeypatch.setattr(recommend, "prompts_to_show", lambda tests: None)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A reference and an anchor on disk."""
    return save_models(tmp_path_factory.mktemp("models"))
