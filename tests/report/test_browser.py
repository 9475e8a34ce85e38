"""The page at length, in Chromium (make test-browser): accessibility, mouse, print, a long run, and full pictures."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from synthetic_sweep import LAMS, PROMPTS, SEEDS, synthetic

from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.report import write_report
from deradiff.report.pair import write_pair_report
from deradiff.results import Results

pytestmark = pytest.mark.browser


def serious(page: Any) -> list[str]:
    """What axe-core finds that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_no_serious_violation_of_accessibility(
    report: Path, open_page: Callable[..., Any], width: int, scheme: str
) -> None:
    page = open_page(report, width=width, scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert serious(page) == []
    page.locator("#wall button").first.click()
    assert serious(page) == []


def test_no_serious_violation_beside_another_run(
    results: Results, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    path = write_pair_report({"one": results, "two": results}, ["warmth"], tmp_path / "pair.html")
    assert serious(open_page(path).page) == []


def test_the_mouse_drags_lam_and_the_wipe(report: Path, open_page: Callable[..., Any]) -> None:
    view = open_page(report)
    page = view.page
    box = page.locator("#lam").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2, steps=10)
    page.mouse.up()
    page.wait_for_function("() => document.getElementById('reading').textContent === 'lam 4'")
    page.locator("#wall button").first.click()
    stage = page.locator("#stage").bounding_box()
    page.mouse.click(stage["x"] + 0.8 * stage["width"], stage["y"] + 0.5 * stage["height"])
    assert int(page.locator("#wipe").input_value()) == pytest.approx(80, abs=3)
    assert view.complaints == []


def test_a_print_has_rows_of_all_lams_and_every_plot(report: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(report).page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    figures = page.locator(".panel .figure").count()
    page.wait_for_function("count => document.querySelectorAll('.figure .main-svg').length >= count", arg=figures)
    assert page.locator("#sheet > .line b").all_inner_texts() == [f"lam {lam:g}" for lam in LAMS]
    assert page.locator("#sheet figure .picture").count() == len(PROMPTS) * len(LAMS)
    assert page.locator("#bar").is_hidden()
    assert page.pdf()[:4] == b"%PDF"


def test_of_a_long_run_only_rows_in_sight_are_in_the_document(
    results: Results, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    many = 300
    rows = [index % len(PROMPTS) for index in range(many)]
    table = results.select(rows, range(len(LAMS)))
    table = dataclasses.replace(table, prompts=[f"prompt number {index}" for index in range(many)])
    page = open_page(write_report(table, recommend(table, "warmth"), tmp_path / "report.html")).page
    assert page.locator("#wall li").count() < many / 2
    assert page.locator("#wall li").first.get_attribute("aria-setsize") == str(many)
    page.evaluate("document.getElementById('wall').scrollIntoView({block: 'end'})")
    page.wait_for_function(
        f"() => [...document.querySelectorAll('#wall .text')].some(e => e.textContent === 'prompt number {many - 1}')"
    )
    assert page.locator("#wall li").count() < many / 2


def test_the_full_picture_is_found_beside_the_page(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    results = synthetic(tmp_path, size=256, prompts=PROMPTS[:3], seeds=SEEDS[:1])
    view = open_page(write_report(results, recommend(results, "warmth"), tmp_path / "report.html"))
    view.page.locator("#wall button").first.click()
    view.page.wait_for_selector("#right img")
    assert view.page.locator("#right img").evaluate("image => image.naturalWidth") == 256
    assert view.complaints == []
    elsewhere = tmp_path / "mailed" / "report.html"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((tmp_path / "report.html").read_bytes())
    page = open_page(elsewhere).page
    page.locator("#wall button").first.click()
    page.wait_for_function("() => document.getElementById('resolution').textContent !== ''")
    assert page.locator("#right .picture").count() == 1


def test_black_images_are_found(results: Results, tmp_path: Path, open_page: Callable[..., Any]) -> None:
    from PIL import Image

    images = results.images.copy()
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    images[4, 0, 2] = tmp_path / "black.png"
    table = dataclasses.replace(results, images=images)
    page = open_page(write_report(table, recommend(table, "warmth"), tmp_path / "report.html")).page
    page.locator("#show").select_option("broken")
    assert page.locator("#wall .text").all_inner_texts() == [PROMPTS[4]]


def test_rewards_that_disagree_come_first(results: Results, tmp_path: Path, open_page: Callable[..., Any]) -> None:
    scores = {name: results.scores[name].copy() for name in ("warmth", "faithfulness")}
    scores["warmth"][6] += np.array(LAMS)
    scores["faithfulness"][6] -= np.array(LAMS)
    table = dataclasses.replace(results, scores=scores)
    answer: Recommendation = dataclasses.replace(recommend(table, "warmth"), lam=4.0)
    page = open_page(write_report(table, answer, tmp_path / "report.html")).page
    page.locator("#sort").select_option("disagree")
    assert page.locator("#wall .text").first.inner_text() == PROMPTS[6]
