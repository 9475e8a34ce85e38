"""The tiny published models, made once."""

from pathlib import Path

import pytest
from tests.rewards.published import BUILDERS


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in BUILDERS}
    for name, build in BUILDERS.items():
        build(made[name])
    return made
