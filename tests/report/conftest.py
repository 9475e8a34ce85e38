"""One synthetic sweep for all tests of the report."""

import pytest
from synthetic_sweep import synthetic

from deradiff.results import Results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return synthetic(tmp_path_factory.mktemp("sweep"))
