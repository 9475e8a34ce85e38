import pytest
from tests.runs.small_runs import recipe_of, save_models

from deradiff.runs.recipe import Recipe


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def recipe(models: tuple[str, str]) -> Recipe:
    return recipe_of(models)
