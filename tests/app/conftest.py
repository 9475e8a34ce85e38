"""A served page on a tiny random pipeline, or on painted images without any model."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.runs.small_runs import recipe_of, save_models

from deradiff.app.engine import Engine
from deradiff.app.page import Served, serve_run
from deradiff.runs.models import load_pipeline
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run
from deradiff.runs.runner import sampling


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def recipe(models: tuple[str, str]) -> Recipe:
    return recipe_of(models)


@pytest.fixture(scope="session")
def engine(recipe: Recipe) -> Iterator[Engine]:
    """One for all tests: an image does not depend on those before."""
    with sampling(load_pipeline(recipe.model), recipe.anchor, recipe) as sampler:
        yield Engine(sampler)


class Page(NamedTuple):
    """A served page."""

    url: str
    served: Served
    run: Run


@pytest.fixture
def page(engine: Engine, recipe: Recipe, tmp_path: Path) -> Iterator[Page]:
    """The page of a new run, on a port of its own."""
    yield from serving(engine, Run(tmp_path / "run", recipe))


def serving(engine: Engine, run: Run) -> Iterator[Page]:
    """Serve a page in a thread while the test runs."""
    import uvicorn

    from deradiff.app import server
    from deradiff.app.page import build_page

    served, ready = serve_run(engine, run), threading.Event()
    with server.bind("127.0.0.1", None) as listening:
        app = server.web_app(build_page(served, ["a red circle"], None), "127.0.0.1", None)

        class Server(uvicorn.Server):
            async def startup(self, sockets: object = None) -> None:
                await super().startup([listening])
                ready.set()

        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, lifespan="on")
        running = Server(config)
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        assert ready.wait(120)
        yield Page(f"http://127.0.0.1:{listening.getsockname()[1]}", served, run)
        running.should_exit = True
        served.stop()
        thread.join(60)
