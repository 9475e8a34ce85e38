import pytest
from tests.sweep.subject import make_plan, save_models

from deradiff.sweep import Plan


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def plan(folders: tuple[str, str]) -> Plan:
    return make_plan(folders)
