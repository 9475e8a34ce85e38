"""The page in a real browser, offline: nothing is fetched, everything is drawn, nothing in a prompt runs."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from synthetic_sweep import LAMS, PROMPTS, SEEDS, synthetic

from deradiff.analysis import messages
from deradiff.analysis.criteria import Guard
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.errors import ResultsError
from deradiff.report import page as page_module
from deradiff.report import write_report
from deradiff.results import Results

Scheme = Literal["light", "dark"]
PATIENCE = 300_000  # ms: a page is there in seconds, but a busy machine must not fail a test
SHOWN = ".grid img:not([hidden])"


@pytest.fixture(scope="session")
def answer(results: Results) -> Recommendation:
    return recommend(results, "warmth", [Guard("faithfulness", margin=0.05, relative=True)])


@pytest.fixture(scope="session")
def report(results: Results, answer: Recommendation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "made" / "report.html"
    return write_report(results, answer, path)


def written(results: Results, folder: Path, objective: str = "warmth", **settings: str) -> Path:
    """The page of one objective without guards."""
    return write_report(results, recommend(results, objective), folder / "report.html", **settings)


def text_of(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text().replace("\u00a0", " ")


@dataclasses.dataclass
class Opened:
    page: Page
    complaints: list[str]
    requests: list[str]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def opened(path: Path, *, width: int = 1280, scheme: Scheme = "light") -> Opened:
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
        return view

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def page(report: Path, browser: Browser) -> Page:
    """The report, opened once for the tests that leave it as it was."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri(), timeout=PATIENCE)
    return page


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_opens_offline_without_a_complaint_or_a_request(
    report: Path, open_page: Callable[..., Opened], width: int, scheme: Scheme
) -> None:
    view = open_page(report, width=width, scheme=scheme)
    assert view.page.locator(".figure .main-svg").count() > 0
    assert view.complaints == []
    assert [url for url in view.requests if not url.startswith("data:")] == [report.as_uri()]
    # Nothing sticks out sideways, so a phone need not zoom out.
    assert view.page.evaluate("document.documentElement.scrollWidth") == width
    dark = view.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")


def test_every_image_decodes(page: Page) -> None:
    sizes = page.evaluate(
        "Promise.all([...document.images].map(async (image) => { await image.decode(); return image.naturalWidth; }))"
    )
    assert sizes == [64] * (len(PROMPTS) * len(SEEDS) * len(LAMS))
    assert page.locator(SHOWN).first.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"


def test_images_are_embedded_exactly(results: Results, page: Page) -> None:
    """Pixel by pixel the drawn file, in the cell of its prompt, seed and lam."""
    for prompt, seed, lam in [(0, 0, 0), (2, 3, 5), (7, 1, 8)]:
        pixel = page.evaluate(
            """async ([row, column, seed]) => {
                const cell = document.querySelectorAll(".grid tbody tr:not(.prompt)")[row].children[column];
                const image = cell.querySelectorAll("img")[seed];
                await image.decode();
                const canvas = new OffscreenCanvas(64, 64).getContext("2d");
                canvas.drawImage(image, 0, 0);
                return [...canvas.getImageData(0, 0, 64, 64).data].filter((_, i) => i % 4 < 3);
            }""",
            [prompt, lam, seed],
        )
        with Image.open(results.image(prompt, seed, lam)) as image:
            np.testing.assert_array_equal(np.reshape(pixel, (64, 64, 3)), np.asarray(image))


def test_every_figure_is_drawn(results: Results, page: Page) -> None:
    figures = page.locator(".figure")
    assert figures.count() == 2 * len(results.scores) + 1
    for i in range(figures.count()):
        assert figures.nth(i).locator("svg .scatterlayer .point").count() >= len(LAMS)
    assert page.locator("#by-lam .figure").first.locator(".x2title").text_content() == "equivalent beta"


def test_the_headline_is_the_recommendation(results: Results, answer: Recommendation, page: Page) -> None:
    assert answer.lam == 1
    assert text_of(page, "h1") == f"Recommended lam = {answer.lam:g}"
    assert text_of(page, ".lead") == messages.lead(answer) == "Faithfulness loses at most 5 %, shown at 5% risk."
    facts = page.locator("header .facts:not(.risks)").inner_text()
    for name, value in results.details.items():
        assert name in facts
        assert value in facts


def test_the_gain_the_guards_and_the_interval_of_lam_stand_first(answer: Recommendation, page: Page) -> None:
    tiles, index = text_of(page, ".tiles"), answer.lams.index(answer.candidate)
    assert answer.gain is not None
    for name, change in (
        ("gain in warmth", answer.gain),
        ("change in faithfulness", answer.curves["faithfulness"].change[index]),
    ):
        mean, low, high = change.figures
        assert re.search(rf"{name}\s+{re.escape(mean)}\s+95 %: {re.escape(low)} to {re.escape(high)}", tiles)
    assert re.search(rf"right lam\s+{answer.interval[0]:g} to {answer.interval[1]:g}", tiles)


def test_the_lams_of_other_risks_stand_side_by_side(answer: Recommendation, page: Page) -> None:
    rows = page.locator(".risks tr")
    assert rows.nth(0).locator("td").all_inner_texts() == ["5 %", "20 %", "50 % best estimate"]
    assert rows.nth(1).locator("td").all_inner_texts() == [f"{lam:g}" for lam in answer.lams_by_risk.values()]


def test_what_else_is_reported_of_the_answer_is_on_the_page(answer: Recommendation, page: Page) -> None:
    header = text_of(page, "header")
    for sentence in (*messages.reasons(answer), *messages.warnings(answer)):
        assert sentence in header
    (alarm,) = answer.raised_alarms
    assert messages.alarm_sentence(alarm, answer.prompts) in header


def test_each_column_has_its_verdict_and_why(answer: Recommendation, page: Page) -> None:
    heads = page.locator(".grid thead th").all_inner_texts()
    assert [text.split("\n")[-1].strip() for text in heads[1:]] == [
        "recommended" if lam == answer.lam else verdict
        for lam, verdict in zip(answer.lams[1:], answer.verdicts[1:], strict=True)
    ]
    assert set(answer.verdicts) == {"shown to hold", "fails"}
    assert page.locator(".grid thead th").last.locator("small[title]").get_attribute("title") == "fails: faithfulness"


def test_the_recommended_column_is_marked(page: Page) -> None:
    marked = page.locator(".grid thead th.chosen")
    assert marked.count() == 1
    assert re.split(r"\s*\n\s*", marked.inner_text()) == ["lam 1", "beta 0.05", "recommended"]
    assert page.locator(".grid td.chosen").count() == len(PROMPTS)
    assert set(page.locator(".grid td.chosen").evaluate_all("cells => cells.map(cell => cell.cellIndex)")) == {4}


def test_the_seed_control_swaps_every_image(page: Page) -> None:
    before = page.locator(SHOWN).evaluate_all("images => images.map(image => image.src)")
    page.get_by_label(str(SEEDS[2]), exact=True).check()
    after = page.locator(SHOWN).evaluate_all("images => images.map(image => image.src)")
    assert len(before) == len(after) == len(PROMPTS) * len(LAMS)
    assert not set(before) & set(after)
    assert all(f"seed {SEEDS[2]}" in alt for alt in page.locator(SHOWN).evaluate_all("all => all.map(i => i.alt)"))
    page.get_by_label(str(SEEDS[0]), exact=True).check()
    assert page.locator(SHOWN).evaluate_all("images => images.map(image => image.src)") == before


@pytest.mark.parametrize("gesture", ["hover", "focus"])
def test_an_image_shows_its_scores(results: Results, page: Page, gesture: str) -> None:
    assert page.locator("#tip").is_hidden()
    image = page.locator(SHOWN).nth(5 * len(LAMS) + 6)
    getattr(image, gesture)()
    told = page.locator("#tip").inner_text()
    for reward, table in results.scores.items():
        assert f"{reward} {table[5, 0, 6]:.3g}" in told
    assert PROMPTS[5] in told
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_lams_stay_in_sight(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.locator(".grid").evaluate("grid => { grid.scrollIntoView({block: 'end'}); grid.scrollTop = 10000; }")
    top = page.locator(".grid thead th").first.evaluate("head => head.getBoundingClientRect().top")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert top >= 0


def test_a_hostile_prompt_is_only_text(page: Page) -> None:
    assert page.locator(".prompt").last.inner_text() == PROMPTS[-1]
    page.locator(SHOWN).last.hover()
    assert PROMPTS[-1] in page.locator("#tip").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[onerror]").count() == 0


def test_hostile_names_are_only_text(results: Results, tmp_path: Path, open_page: Callable[..., Opened]) -> None:
    """Reward names and details reach the figures' labels and the facts."""
    name = "<b onclick='window.hacked=1'>a</b></script><script>window.hacked=1</script>"
    hostile = dataclasses.replace(results, scores={name: results.scores["warmth"]}, details={name: name})
    view = open_page(written(hostile, tmp_path, name))
    assert view.complaints == []
    assert view.page.evaluate("window.hacked") is None
    assert view.page.locator(".ytitle").first.text_content() == name


def test_what_was_not_recorded_is_left_out_with_a_word(
    results: Results, tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    bare = dataclasses.replace(results, path_kl=None, anchor_beta=None, details={})
    view = open_page(written(bare, tmp_path))
    assert view.complaints == []
    assert view.page.locator(".figure[aria-label*=' against lam']").count() == len(results.scores)
    text = view.page.locator("body").inner_text()
    assert "This run recorded no path KL" in text
    assert "equivalent beta" not in view.page.locator("header").inner_text()
    # no guard was named, but the alarm found one
    assert view.page.locator("[aria-label^='Mean faithfulness against mean']").count() == 1


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


def test_gaps_of_a_run_are_drawn_as_gaps(results: Results, tmp_path: Path, open_page: Callable[..., Opened]) -> None:
    sparse = with_gaps(results)
    answer = recommend(sparse.select(range(len(PROMPTS)), [0, *range(2, len(LAMS))]), "warmth")
    full = recommend(results, "warmth")  # a searched grid's answer has all lams
    assert full.lams == sparse.lams
    view = open_page(write_report(sparse, dataclasses.replace(full, lam=answer.lam), tmp_path / "report.html"))
    page, prompts, seeds = view.page, len(PROMPTS), len(SEEDS)
    assert view.complaints == []
    there = int((sparse.images != "").sum())
    assert page.locator(".grid img").count() == there == prompts * (4 * seeds + 4) - 1
    heads = page.locator(".grid thead b").all_inner_texts()
    assert heads == [f"lam {lam:g}" for lam in LAMS if lam != 0.25]
    assert page.locator(".grid .gap").count() == prompts * seeds * 8 - there
    assert page.locator(".grid .gap:not([hidden])").all_inner_texts() == ["not sampled"]  # of the first seed
    page.get_by_label(str(SEEDS[1]), exact=True).check()
    assert page.locator(".grid .gap:not([hidden])").count() == 4 * prompts
    assert page.locator(SHOWN).count() == 4 * prompts
    facts = text_of(page, "header")
    assert f"{there} of the {prompts * seeds * 8} of {prompts} prompts × {seeds} seeds × 8 lams" in facts
    assert "7 requested images are missing" in facts


def test_the_recommended_lam_has_its_column_though_it_was_not_sampled(
    results: Results, answer: Recommendation, tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    chosen = dataclasses.replace(answer, lam=0.25)
    page = open_page(write_report(with_gaps(results), chosen, tmp_path / "report.html")).page
    assert page.locator(".grid thead th.chosen b").inner_text() == "lam 0.25"
    assert page.locator(".grid thead th").count() == len(LAMS)
    assert page.locator(".grid td.chosen img").count() == 0


class Folder:
    """A run, as far as the page is told of it."""

    def __init__(self, folder: Path, results: Results) -> None:
        self.folder, self.table = folder, results

    def results(self) -> Results:
        return self.table


def test_the_page_of_a_run_lies_in_its_folder(results: Results, answer: Recommendation, tmp_path: Path) -> None:
    written_to = write_report(Folder(tmp_path / "run", results), answer)
    assert written_to == tmp_path / "run" / "report.html"
    assert written_to.read_bytes() == write_report(results, answer, tmp_path / "other.html").read_bytes()
    with pytest.raises(ResultsError, match="give the path of the page"):
        write_report(results, answer)


def test_a_silent_alarm_shows_how_near_it_was(
    results: Results, tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    calm = dataclasses.replace(results, scores={name: results.scores[name] for name in ("warmth", "sharpness")})
    page = open_page(written(calm, tmp_path)).page
    silence = messages.no_alarm_message(recommend(calm, "warmth"))
    assert f"Hacking alarm: {silence}" in text_of(page, "header")
    assert page.locator("[aria-label='Hacking alarm']").count() == 0
    assert "no alarm raised" in page.locator("body").inner_text()


def test_large_images_are_reduced(tmp_path: Path, open_page: Callable[..., Opened]) -> None:
    results = synthetic(tmp_path, size=512, prompts=PROMPTS[:2], seeds=SEEDS[:1])
    page = open_page(written(results, tmp_path)).page
    image = page.locator(SHOWN).first
    assert image.evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 320
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "auto"


def test_the_first_prompts_are_shown_where_there_are_many(
    results: Results, tmp_path: Path, open_page: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "MAX_IMAGES", 3 * len(SEEDS) * len(LAMS) + 1)
    page = open_page(written(results, tmp_path)).page
    assert page.locator(".prompt").all_inner_texts() == list(PROMPTS[:3])
    assert f"The first 3 of {len(PROMPTS)} prompts" in page.locator("#images").inner_text()


def test_the_headline_distinguishes_the_pages_of_one_run(
    results: Results, tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    page = open_page(written(results, tmp_path, at="guidance 7.5")).page
    assert page.locator("h1").inner_text().replace("\u00a0", " ").endswith(" at guidance 7.5")
    assert page.title().endswith(" at guidance 7.5")


def test_plotly_is_inlined_once(report: Path) -> None:
    assert report.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_a_missing_image_is_named(results: Results, tmp_path: Path) -> None:
    images = results.images.copy()
    images[3, 1, 2] = tmp_path / "gone.png"
    with pytest.raises(ResultsError, match=r"gone\.png"):
        written(dataclasses.replace(results, images=images), tmp_path)
    assert not (tmp_path / "report.html").exists()
