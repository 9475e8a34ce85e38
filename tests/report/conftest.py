"""One synthetic sweep for all tests of the report, its page, and what a browser says of it."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page
from synthetic_sweep import synthetic

from deradiff.analysis.criteria import Guard
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.report import write_report
from deradiff.results import Results

PATIENCE = 300_000  # ms: a page is there in seconds, but a busy machine must not fail a test


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return synthetic(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def answer(results: Results) -> Recommendation:
    return recommend(results, "warmth", [Guard("faithfulness", margin=0.05, relative=True)])


@pytest.fixture(scope="session")
def report(results: Results, answer: Recommendation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "made" / "report.html"
    return write_report(results, answer, path)


@dataclasses.dataclass
class Opened:
    page: Page
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def opened(path: Path, *, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, service_workers="block"
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        view = Opened(page=context.new_page(), complaints=[], requests=[])
        view.page.on("console", lambda message: view.complaints.append(message.text))
        view.page.on("pageerror", lambda error: view.complaints.append(str(error)))
        view.page.on("request", lambda request: view.requests.append(request.url))
        view.page.goto(path.as_uri())
        view.page.wait_for_selector("html[data-ready]", state="attached")
        return view

    yield opened
    for context in contexts:
        context.close()
