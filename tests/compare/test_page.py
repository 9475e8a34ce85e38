"""The page in a real browser, offline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from tests.compare.synthetic import BETAS, scores, table

from deradiff.compare import page as figures
from deradiff.compare.optimum import RETRAINED, compute_optimum
from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS
from deradiff.compare.page import render

HOSTILE = "<b onclick='window.hacked=1'>a</b></script><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page of two tables, the second of hostile names; complaints and requests end up in its title."""
    path: Path = tmp_path_factory.mktemp("page") / "compare.html"
    path.write_bytes(render([table(), table(reward=HOSTILE, anchor=HOSTILE)], {"Steps": "20"}))
    page = browser.new_page(viewport={"width": 390, "height": 900})
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    page.goto(path.as_uri(), timeout=300_000)
    for figure in page.locator(".figure:visible").all():  # each is drawn when it comes near the window
        figure.scroll_into_view_if_needed(timeout=60_000)
        figure.locator(".main-svg").first.wait_for(timeout=60_000)
    assert told == [path.as_uri()]
    return page


def test_nothing_sticks_out_on_a_phone_and_nothing_hostile_runs(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("window.hacked") is None
    assert HOSTILE in page.locator("h2").nth(1).inner_text()


def test_the_headline_is_the_first_tables(page: Page) -> None:
    assert page.locator("h1").inner_text() == "DeRaDiff errs by 2.0% of the spread"
    assert page.locator(".tiles dd").all_inner_texts() == ["30.0%", "6.0%", "30.0%", "10.0%", "unknown"]
    assert "Steps\t20" in page.locator(".facts").inner_text()


def test_every_arm_is_drawn_and_reported(page: Page) -> None:
    assert page.locator(".figure").count() == 4
    for place, lines in enumerate([7, 5]):  # retrained models, their training seeds, and five arms
        assert page.locator(".figure").nth(place).locator(".scatterlayer .trace").count() == lines
    section = page.locator("section.table").first
    assert section.locator("tbody tr").count() == 5 * 6
    section.locator("summary").click()
    cells = section.locator("tbody tr").first.inner_text().split("\t")
    assert cells[:3] == ["DeRaDiff", "0.25", f"{table().rows[0].mean:.3g}"]
    assert (cells[5], cells[9]) == ("30.0%", "0.000")


def test_what_is_unknown_is_said_to_be(browser: Browser) -> None:
    arms = {arm: [0.0] * 6 for arm in (DERADIFF, WEIGHTS, ANCHOR, REFERENCE)}
    page = browser.new_page()
    page.set_content(render([table(scores(arms, means=(0,) * 6), seed_noise=None)], {}).decode())
    assert page.locator("h1").inner_text() == "DeRaDiff's error is unknown"
    assert "can't judge an emulation" in page.locator(".warnings").inner_text()
    assert page.locator(".figure").count() == 1


def test_errors_are_drawn_as_shares_of_the_spread() -> None:
    drawn: Any = figures.plot_errors(table())
    assert lines(drawn)["DeRaDiff"] == pytest.approx([30, 4, 0, -2, 1, 60])
    assert [(band.y0, band.y1) for band in drawn.layout.shapes if band.type == "rect"] == [(-10, 10)]
    means = lines(figures.plot_rewards(table()))
    assert means["DeRaDiff"][0] - means["retrained"][0] == pytest.approx(1.5)


def test_errors_against_the_optimum_are_drawn_where_it_is_known() -> None:
    assert figures.plot_optimum_errors(table()) is None
    pool = np.tile(np.repeat([0.0, 1.0], 20), (3, 1))
    arms = (RETRAINED, DERADIFF, WEIGHTS, ANCHOR, REFERENCE)
    best = [1 / (1 + np.exp(-1 / beta)) for beta in BETAS[:2]]  # of a coin
    off = {arm: [np.full((3, 2), mean + 0.1 * place) for mean in best] for place, arm in enumerate(arms)}
    known = compute_optimum("warmth", BETAS[:2], pool, pool, off)
    drawn = lines(figures.plot_optimum_errors(table(optimum=known)))
    shares = [10 * place / (best[0] - best[1]) for place in range(5)]
    assert [drawn[figures.NAMES[arm]] for arm in arms] == [pytest.approx([share] * 2, abs=1e-6) for share in shares]
    none = compute_optimum("warmth", BETAS[:2], pool[:, :14], pool[:, :14], off)
    assert figures.plot_optimum_errors(table(optimum=none)) is None
    assert "is unknown at beta 0.25 (14.0), 0.5 (14.0)" in table(optimum=none).warnings[0]


def lines(figure: Any) -> dict[str, list[float]]:
    return {line.name: list(line.y) for line in figure.data}
