"""The served page in a real browser that reaches this machine alone."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect
from playwright.sync_api import Page as Tab
from tests.app.conftest import Page, serving
from tests.runs.painted import painted

from deradiff.analysis.votes import fit_votes
from deradiff.app.engine import Engine
from deradiff.app.markup import data_uri
from deradiff.app.requests import ImageRequest
from deradiff.app.turns import Job
from deradiff.runs.run import Run
from deradiff.writing import encode_png

pytestmark = pytest.mark.browser

PATIENCE = 300_000  # ms: a busy machine must not fail a test
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>${window.hacked=1}{{value}}"

RELOADED = "AbortError|Connection errored out"  # gradio's words where a page is left while it draws

Opener = Callable[..., Tab]

expect.set_options(timeout=PATIENCE)


@pytest.fixture
def opener(browser: Browser) -> Iterator[Opener]:
    contexts, complaints, outside = [], list[str](), list[str]()

    def local(route: Route) -> None:
        if re.match(r"(https?://127\.0\.0\.1|data:|blob:)", route.request.url):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    def opened(url: str, context: Any = None, **settings: Any) -> Tab:
        if context is None:
            context = browser.new_context(service_workers="block", **settings)
            context.set_default_timeout(PATIENCE)
            context.route("**/*", local)
            contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(url)
        tab.wait_for_selector("#draw")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not [text for text in complaints if not re.search(RELOADED, text)]
    assert not outside


def caption(tab: Tab) -> Any:
    return tab.locator("#shown figcaption")


def image(tab: Tab) -> str:
    return str(tab.locator("#shown img").get_attribute("src"))


def set_number(tab: Tab, name: str, value: float) -> None:
    field = tab.locator(f"#{name} input[type=number]").first
    field.fill(str(value))
    field.blur()


def drag_lam(tab: Tab, share: float) -> None:
    box = tab.locator("#lam-0 input[type=range]").bounding_box()
    assert box is not None
    height = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] * 0.25, height)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * share, height, steps=4)


def test_a_preview_follows_the_slider_and_release_draws_exactly(page: Page, opener: Opener) -> None:
    tab = opener(page.url)
    drag_lam(tab, 0.75)
    expect(caption(tab)).to_contain_text("preview")
    tab.mouse.up()
    expect(caption(tab)).to_contain_text("exact")
    lam = tab.locator("#lam-0 input[type=number]").input_value()
    expect(caption(tab)).to_contain_text(f"lam {float(lam):g}")
    assert float(lam) > 1
    tab.click("#compare")
    expect(tab.locator("#side figure")).to_have_count(4)
    lams = tab.locator("#side figcaption").all_inner_texts()
    assert lams == ["lam 0", "lam 0.5", "lam 1", "lam 1.5"]
    assert len({str(one.get_attribute("src")) for one in tab.locator("#side img").all()}) == 4
    tab.fill("#prompt textarea", " ")
    tab.click("#draw")
    expect(tab.locator("#explore-status")).to_contain_text("Error: the prompt is empty")


def test_a_stop_ends_a_generation_and_a_reload_keeps_what_was_set(page: Page, opener: Opener) -> None:
    tab = opener(page.url)
    tab.fill("#prompt textarea", HOSTILE)
    set_number(tab, "steps", 200)
    set_number(tab, "seed", 77)
    tab.click("#draw")
    expect(tab.locator("#explore-status")).to_contain_text("step")
    tab.click("#stop")
    expect(tab.locator("#explore-status")).to_contain_text("Stopped")
    expect(tab.locator("#shown img")).to_have_count(0)
    tab.click("#draw")
    expect(tab.locator("#explore-status")).to_contain_text("step")
    tab.reload()
    expect(tab.locator("#prompt textarea")).to_have_value(HOSTILE)
    expect(tab.locator("#seed input")).to_have_value("77")
    set_number(tab, "steps", 3)
    tab.click("#draw")  # the one of before was stopped with its page
    expect(caption(tab)).to_contain_text("exact, 3 steps · seed 77")
    assert tab.evaluate("window.hacked") is None


def test_two_users_at_once_get_their_own_images(page: Page, opener: Opener) -> None:
    tabs = [opener(page.url) for _ in range(2)]
    for tab, seed in zip(tabs, (5, 6), strict=True):
        set_number(tab, "seed", seed)
        set_number(tab, "steps", 30)
        set_number(tab, "lam-0", seed / 5)
    for tab in tabs:
        tab.click("#draw")
    together = []
    for tab, seed in zip(tabs, (5, 6), strict=True):
        expect(caption(tab)).to_contain_text(f"lam {seed / 5:g} · exact, 30 steps · seed {seed}")
        together.append(image(tab))
    requests = {(asked.seed, asked.steps, asked.preview): asked for asked in page.served.engine._images}
    page.served.engine._images.clear()
    for seed, before in zip((5, 6), together, strict=True):
        lams = (("aligned", seed / 5),)
        alone = ImageRequest(prompt="a red circle", lams=lams, seed=seed, steps=30)
        assert requests[seed, 30, False] == alone
        assert before == data_uri(encode_png(page.served.engine.draw(alone, Job())))
    assert together[0] != together[1]


def test_a_sweep_is_watched_stopped_and_goes_on_to_its_report(page: Page, opener: Opener) -> None:
    tab = opener(page.url)
    tab.get_by_role("tab", name="Sweep").click()
    tab.click("#report")
    expect(tab.locator("#report-answer")).to_contain_text("Error: no reward to raise")
    tab.fill("#sweep-prompts textarea", f"a red circle\n{HOSTILE}")
    tab.click("#start")
    expect(tab.locator("#sweep-images .grid img")).to_have_count(8)
    expect(tab.locator("#sweep-status")).to_contain_text("Done")
    tab.get_by_label("saturation", exact=True).check()
    tab.click("#score")
    expect(tab.locator("#sweep-images .scores")).to_contain_text("saturation")
    assert page.run.is_complete()
    expect(tab.locator("#objective input")).to_have_value("saturation")  # the only one
    tab.click("#report")
    expect(tab.frame_locator("iframe.report").locator("h1")).to_contain_text("lam")
    assert tab.evaluate("window.hacked") is None


def voted_on(engine: Engine, folder: Path) -> Iterator[Page]:
    prompts = [HOSTILE, *(f"prompt {number}" for number in range(7))]
    painted(folder / "run", recipe=engine.recipe.model_dump(), lams=[0.0, 0.5, 1.0, 1.5], prompts=prompts)
    yield from serving(engine, Run(folder / "run"))


@pytest.fixture
def booth(engine: Engine, tmp_path: Path) -> Iterator[Page]:
    yield from voted_on(engine, tmp_path)


def test_votes_by_keys_survive_reloads_and_count_once(booth: Page, opener: Opener) -> None:
    tab = opener(booth.url)
    tab.get_by_role("tab", name="Choose by eye").click()
    tab.click("#begin")
    expect(tab.locator("#pair")).to_contain_text("Error: who judges?")
    expect(tab.locator("#vote-left")).to_be_hidden()
    tab.fill("#rater input, #rater textarea", HOSTILE[:100])
    tab.click("#begin")
    expect(tab.locator("#pair img")).to_have_count(2)
    html = tab.locator("#pair").inner_html()
    assert "lam" not in re.sub(r"base64,[^\"]*", "", html)
    sources = [str(one.get_attribute("src")) for one in tab.locator("#pair img").all()]
    tab.reload()
    tab.get_by_role("tab", name="Choose by eye").click()
    tab.click("#begin")
    expect(tab.locator("#pair img").first).to_have_attribute("src", sources[0])
    tab.locator("#pair").click()
    for number, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowDown", "Space"), start=1):
        tab.keyboard.press(key)
        expect(tab.locator("#vote-count")).to_contain_text(f"{number} vote")
    assert [vote.outcome for vote in booth.run.votes()] == ["left", "right", "tie", "tie"]
    tab.click("#standing-button")
    expect(tab.locator("#standing")).to_contain_text("Recommended lam")
    assert tab.evaluate("window.hacked") is None


def test_thirty_votes_of_a_rater_with_a_known_preference(booth: Page, opener: Opener) -> None:
    tab, preferred = opener(booth.url), 1.0
    shown = {
        (vote_of.read_bytes()): float(lam)
        for table in [booth.run.results()]
        for lam, column in zip(table.lams, table.images.transpose(2, 0, 1), strict=True)
        for vote_of in map(Path, column.ravel())
    }
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    lam_of = {Image.open(BytesIO(png)).convert("RGB").tobytes(): lam for png, lam in shown.items()}
    tab.get_by_role("tab", name="Choose by eye").click()
    tab.fill("#rater input, #rater textarea", "anne")
    tab.click("#begin")
    for number in range(30):
        expect(tab.locator("#vote-count")).to_contain_text(f"{number} vote")
        pngs = [b64decode(str(one.get_attribute("src")).split(",")[1]) for one in tab.locator("#pair img").all()]
        left, right = (abs(lam_of[Image.open(BytesIO(png)).tobytes()] - preferred) for png in pngs)
        tab.click("#vote-tie" if left == right else "#vote-left" if left < right else "#vote-right")
    expect(tab.locator("#vote-count")).to_contain_text("30 votes")
    tab.click("#standing-button")
    expect(tab.locator("#standing")).to_contain_text("30 votes by 1 rater")
    fit = fit_votes(booth.run.votes(), booth.run.results().lams)
    assert fit.votes == 30
    assert fit.interval[0] <= preferred <= fit.interval[1]
    assert fit.interval != (0.0, 1.5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_of_ours(booth: Page, opener: Opener, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab = opener(booth.url, color_scheme=scheme)
    for name in ("Explore", "Sweep", "Choose by eye"):
        tab.get_by_role("tab", name=name).click()
        threading.Event().wait(0.5)
        found = Axe().run(tab, options={"runOnly": ["wcag2a", "wcag2aa"]}).response["violations"]
        serious = {
            violation["id"]: [node["html"][:160] for node in violation["nodes"]]
            for violation in found
            if violation["impact"] in ("serious", "critical") and violation["id"] not in GRADIOS
        }
        assert not serious, name


GRADIOS: dict[str, str] = {}  # rules that gradio's own markup breaks, each with the reason
