from pathlib import Path

import pytest
from tests.runs.painted import painted
from tests.runs.small_runs import REWARD, recipe_of, save_models

from deradiff.runs.recipe import Recipe
from deradiff.runs.scoring import score
from deradiff.runs.store import Store


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def recipe(models: tuple[str, str]) -> Recipe:
    return recipe_of(models)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A painted, scored run, to do harm to."""
    found = painted(tmp_path / "run")
    score(found, REWARD)
    return found
