"""The page in a real browser, offline: the answer, one control that moves everything, and nothing in a prompt runs."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page
from synthetic_sweep import LAMS, PROMPTS, SEEDS

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.errors import ResultsError
from deradiff.report import write_report
from deradiff.results import Results

CHOSEN = LAMS.index(1)


@pytest.fixture(scope="module")
def view(report: Path, open_page: Callable[..., object]) -> object:
    return open_page(report)


@pytest.fixture(scope="module")
def page(view: object) -> Page:
    """The report, opened once; tests put lam and the controls back."""
    return view.page  # pyright: ignore[reportAttributeAccessIssue]


def data_of(path: Path) -> list[dict[str, object]]:
    """The data in a page, as its script reads it."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def text_of(page: Page, selector: str) -> str:
    return page.locator(selector).first.inner_text().replace("\u00a0", " ")


def tiles(page: Page) -> list[str]:
    """Which tile of its strip each picture of the wall shows."""
    return page.locator("#wall .picture").evaluate_all("pictures => pictures.map(picture => picture.dataset.tile)")


def move(page: Page, lam: int) -> None:
    page.locator("#lam").focus()
    page.keyboard.press("Home")
    for _ in range(lam):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "label => document.getElementById('reading').textContent === label", arg=f"lam {LAMS[lam]:g}"
    )


def test_it_opens_offline_without_a_complaint_or_a_request(view: object, report: Path) -> None:
    page = view.page  # pyright: ignore[reportAttributeAccessIssue]
    page.locator(".figure").first.scroll_into_view_if_needed()
    page.wait_for_selector(".figure .main-svg")
    assert view.complaints == []  # pyright: ignore[reportAttributeAccessIssue]
    requests = view.requests  # pyright: ignore[reportAttributeAccessIssue]
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert page.evaluate("window.hacked") is None


def test_the_answer_stands_first(answer: Recommendation, page: Page) -> None:
    header = text_of(page, "header")
    assert text_of(page, "h1") == "Recommended lam = 1"
    assert text_of(page, ".lead") == messages.lead(answer)
    for sentence in (*messages.reasons(answer), *messages.warnings(answer)):
        assert sentence in header
    (alarm,) = answer.raised_alarms
    assert messages.alarm_sentence(alarm, answer.prompts) in header
    assert answer.gain is not None
    mean, low, high = answer.gain.figures
    assert re.search(rf"gain in warmth\s+{re.escape(mean)}\s+95%: {re.escape(low)} to {re.escape(high)}", header)


def test_the_strip_under_a_curve_holds_the_verdicts(answer: Recommendation, page: Page) -> None:
    strip = page.locator(".verdicts").first.locator("i")
    kinds = strip.evaluate_all("marks => marks.map(mark => mark.className)")
    assert kinds == [
        verdict.replace(" ", "-") if lam else "reference"
        for lam, verdict in zip(answer.lams, answer.verdicts, strict=True)
    ]


def test_one_control_moves_every_picture_and_the_cursors(page: Page) -> None:
    assert set(tiles(page)) == {str(CHOSEN)}
    move(page, 3)
    assert set(tiles(page)) == {"3"}
    cursor = page.locator(".figure > .cursor").first
    before = cursor.evaluate("cursor => cursor.style.transform")
    page.keyboard.press("End")
    page.wait_for_function("() => document.getElementById('reading').textContent === 'lam 4'")
    assert set(tiles(page)) == {str(len(LAMS) - 1)}
    assert cursor.evaluate("cursor => cursor.style.transform") != before
    assert "fails" in page.locator("#verdict").inner_text()
    page.locator("#chosen").click()
    page.wait_for_function("() => document.getElementById('reading').textContent === 'lam 1'")


def test_a_picture_opens_with_its_scores_and_a_wipe(results: Results, page: Page) -> None:
    page.locator("#wall button").nth(2).click()
    dialog = page.locator("#detail")
    assert page.locator("#detail-title").inner_text() == PROMPTS[2]
    cells = page.locator("#scores tr").nth(1).locator("td").all_inner_texts()
    expected = results.scores["warmth"][2, 0, [0, CHOSEN]]
    np.testing.assert_allclose([float(cell) for cell in cells[:2]], expected, rtol=0.01)
    clip = "document.getElementById('right').style.clipPath"
    before = page.evaluate(clip)
    page.locator("#wipe").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(clip) != before
    page.locator("#next").click()
    assert page.locator("#detail-title").inner_text() == PROMPTS[3]
    page.keyboard.press("Escape")
    assert dialog.is_hidden()


def test_prompts_are_found_filtered_and_sorted(results: Results, page: Page) -> None:
    page.locator("#find").fill("purple")
    assert page.locator("#wall .text").all_inner_texts() == [text for text in PROMPTS if "purple" in text]
    page.locator("#find").fill("")
    move(page, len(LAMS) - 1)
    page.locator("#sort").select_option("falls faithfulness")
    faithful = results.scores["faithfulness"][:, 0]
    order = np.argsort(faithful[:, -1] - faithful[:, 0], kind="stable")
    assert page.locator("#wall .text").first.inner_text() == PROMPTS[order[0]]
    page.locator("#show").select_option("failing")
    margin = 0.05 * results.scores["faithfulness"][:, :, 0].mean()
    failing = int((faithful[:, -1] - faithful[:, 0] < -margin).sum())
    assert page.locator("#found").inner_text().startswith(f"{failing} of {len(PROMPTS)} prompts")
    page.locator("#show").select_option("all")
    page.locator("#sort").select_option("order")
    page.locator("#chosen").click()


def test_a_seed_has_its_own_pictures(page: Page) -> None:
    look = "pictures => pictures.map(picture => picture.style.backgroundImage)"
    before = page.locator("#wall .picture").evaluate_all(look)
    page.locator("#seed").select_option(label=str(SEEDS[2]))
    assert not set(before) & set(page.locator("#wall .picture").evaluate_all(look))
    page.locator("#seed").select_option(label=str(SEEDS[0]))


def test_a_hostile_prompt_is_only_text(page: Page) -> None:
    assert page.locator("#wall .text").last.inner_text() == PROMPTS[-1]
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[onerror]").count() == 0


def test_hostile_names_are_only_text(results: Results, tmp_path: Path, open_page: Callable[..., object]) -> None:
    name = "<b onclick='window.hacked=1'>a</b></script><script>window.hacked=1</script>"
    hostile = dataclasses.replace(
        results, scores={name: results.scores["warmth"]}, details={name: name}, seeds=results.seeds
    )
    path = write_report({name: hostile}, {name: recommend(hostile, name)}, tmp_path / "report.html")
    view = open_page(path)
    page = view.page  # pyright: ignore[reportAttributeAccessIssue]
    assert view.complaints == []  # pyright: ignore[reportAttributeAccessIssue]
    assert page.evaluate("window.hacked") is None
    assert any(name in text for text in page.locator("#wall .score").all_inner_texts())


def test_several_tables_are_tabs(
    results: Results, answer: Recommendation, tmp_path: Path, open_page: Callable[..., object]
) -> None:
    other = recommend(results, "sharpness")
    path = write_report({"three": results, "seven": results}, {"three": answer, "seven": other}, tmp_path / "tabs.html")
    page = open_page(path).page  # pyright: ignore[reportAttributeAccessIssue]
    page.get_by_role("tab").nth(1).click()
    assert page.locator(".panel:not([hidden]) h1").inner_text().replace("\u00a0", " ").endswith("at seven")
    assert page.locator("#reading").inner_text() == f"lam {other.lam:g}"
    with pytest.raises(ResultsError, match="one answer for each table"):
        write_report({"three": results}, {"four": answer}, tmp_path / "wrong.html")


def with_gaps(results: Results) -> Results:
    """One seed alone at lam = 1.5 and above, nothing at 0.25, no image of the second prompt at 2."""
    there = np.ones(results.shape, bool)
    there[:, 1:, 5:] = there[:, :, 1] = there[1, :, 6] = False
    assert results.path_kl is not None
    return dataclasses.replace(
        results,
        images=np.where(there, results.images, ""),
        scores={name: np.where(there, table, np.nan) for name, table in results.scores.items()},
        path_kl=np.where(there, results.path_kl, np.nan),
        missing=7,
    )


def test_gaps_of_a_run_are_gaps(results: Results, tmp_path: Path, open_page: Callable[..., object]) -> None:
    sparse = with_gaps(results)
    answer = dataclasses.replace(recommend(results, "warmth"), lam=1.0)  # a searched grid's answer has all lams
    path = write_report(sparse, answer, tmp_path / "report.html")
    (data,) = data_of(path)
    assert [lam["value"] for lam in data["lams"]] == [lam for lam in LAMS if lam != 0.25]  # pyright: ignore
    page = open_page(path).page  # pyright: ignore[reportAttributeAccessIssue]
    page.locator("#lam").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('reading').textContent === 'lam 2'")
    gaps = page.locator("#wall .picture").evaluate_all("all => all.map(each => each.classList.contains('gap'))")
    assert gaps == [prompt == 1 for prompt in range(len(PROMPTS))]
    assert "7 requested images are missing" in text_of(page, "header")


class Folder:
    """A run, as far as the page knows it."""

    def __init__(self, folder: Path, results: Results) -> None:
        self.folder, self.table = folder, results

    def results(self) -> Results:
        return self.table


def test_the_page_of_a_run_lies_in_its_folder(results: Results, answer: Recommendation, tmp_path: Path) -> None:
    written_to = write_report(Folder(tmp_path / "run", results), answer)
    assert written_to == tmp_path / "run" / "report.html"
    with pytest.raises(ResultsError, match="give the path of the page"):
        write_report(results, answer)


def test_pictures_beside_the_page_are_linked(results: Results, answer: Recommendation, tmp_path: Path) -> None:
    beside = Path(results.image(0, 0, 0)).parent
    (data,) = data_of(write_report(results, answer, beside / "report.html"))
    assert data["runs"][0]["files"][0] == "0-0-0.png"  # pyright: ignore
    (data,) = data_of(write_report(results, answer, tmp_path / "report.html"))
    assert set(data["runs"][0]["files"]) == {""}  # pyright: ignore


def test_plotly_is_there_once(report: Path) -> None:
    assert report.read_text(encoding="utf-8").count('id="plotly"') == 1


def test_a_missing_image_is_named(results: Results, tmp_path: Path) -> None:
    images = results.images.copy()
    images[3, 1, 2] = tmp_path / "gone.png"
    broken = dataclasses.replace(results, images=images)
    with pytest.raises(ResultsError, match=r"gone\.png"):
        write_report(broken, recommend(broken, "warmth"), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
