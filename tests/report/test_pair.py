"""Two runs on one page: what they share, the paired difference, and nothing else."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from synthetic_sweep import LAMS, PROMPTS, SEEDS

from deradiff.errors import ResultsError
from deradiff.report.pair import write_pair_report
from deradiff.results import Results

SHARED_PROMPTS, SHARED_SEEDS, SHARED_LAMS = PROMPTS[3:], SEEDS[1:], LAMS[:5]


@pytest.fixture(scope="module")
def other(results: Results) -> Results:
    """Another run of some prompts, seeds and lams, and of others, whose warmth is 0.25 higher."""
    table = results.on_axes([*SHARED_PROMPTS, "new"], [*SHARED_SEEDS, 99], [*SHARED_LAMS, 9.0])
    scores = dict(table.scores)
    scores["warmth"] = scores["warmth"] + 0.25
    return Results(**{**vars(table), "scores": scores, "details": {"scheduler": "another"}, "anchor_beta": 0.2})


@pytest.fixture(scope="module")
def path(results: Results, other: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pair") / "pair.html"
    return write_pair_report({"one": results, "two": other}, ["warmth", "faithfulness"], target)


def test_what_both_have_is_drawn_offline(path: Path, browser: Browser) -> None:
    page = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    assert complaints == []
    assert page.locator("#wall .text").all_inner_texts() == list(SHARED_PROMPTS)
    assert page.locator("#wall .picture").count() == 2 * len(SHARED_PROMPTS)
    assert page.locator("#reading").inner_text() == "lam 1"
    assert set(page.locator("#wall .score").all_inner_texts()) == {"+0.25 warmth"}
    page.locator("#sort").select_option("differs warmth")
    page.locator("#lam").press("Home")
    page.wait_for_function("() => document.getElementById('reading').textContent === 'lam 0'")
    page.locator("#chosen").click()
    page.wait_for_function("() => document.getElementById('reading').textContent === 'lam 1'")
    assert page.evaluate("window.hacked") is None
    page.locator("#wall button").first.click()
    assert page.locator("#left-lam").input_value() == f"0 {len(SHARED_LAMS) - 1}"
    assert page.locator("#right-lam").input_value() == f"1 {len(SHARED_LAMS) - 1}"


def test_the_difference_is_paired(path: Path, browser: Browser) -> None:
    page = browser.new_context(offline=True).new_page()
    page.goto(path.as_uri())
    warmth, faithfulness = page.locator("table.wins").all()
    differences = warmth.locator("tr td:last-child").all_inner_texts()
    assert len(differences) == len(SHARED_LAMS)
    assert all(text.startswith("+0.25") for text in differences)
    assert all(text.startswith("+0.00") for text in faithfulness.locator("tr td:last-child").all_inner_texts())


def test_settings_that_differ_are_marked(path: Path, browser: Browser) -> None:
    page = browser.new_context(offline=True).new_page()
    page.goto(path.as_uri())
    differing = page.locator("tr.differs th").all_inner_texts()
    assert {"Anchor's beta", "scheduler"} <= set(differing)


def test_runs_that_share_nothing_are_an_error(results: Results, tmp_path: Path) -> None:
    strangers = results.on_axes(["another"], SEEDS, LAMS, [])
    with pytest.raises(ResultsError, match="share no prompt"):
        write_pair_report({"one": results, "two": strangers}, ["warmth"], tmp_path / "pair.html")
    assert not (tmp_path / "pair.html").exists()


def test_a_reward_that_one_has_no_scores_of_is_reported_with_its_run(results: Results, tmp_path: Path) -> None:
    scores = {"faithfulness": results.scores["faithfulness"]}
    partly = dataclasses.replace(results, scores=scores, unscored={"warmth": 3})
    with pytest.raises(ResultsError, match=r"two: 3 of .* images have no score of warmth"):
        write_pair_report({"one": results, "two": partly}, ["warmth"], tmp_path / "pair.html")
    assert not (tmp_path / "pair.html").exists()


def test_gaps_stay_gaps(results: Results, other: Results, tmp_path: Path) -> None:
    scores, images = {name: table.copy() for name, table in other.scores.items()}, other.images.copy()
    for table in scores.values():
        table[0, 0, 1] = np.nan
    images[0, 0, 1] = ""
    ragged = Results(**{**vars(other), "scores": scores, "images": images})
    text = write_pair_report({"one": results, "two": ragged}, ["warmth"], tmp_path / "pair.html").read_text()
    match = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    one, two = json.loads(match[1])[0]["runs"]
    assert [run["tiles"].count(-1) for run in (one, two)] == [0, 1]
