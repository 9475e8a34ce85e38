"""The report's section on votes: there where there are votes, and what it draws."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.analysis.synthetic import sweep
from tests.analysis.voters import LAMS, votes_of

from deradiff.analysis.recommend import recommend
from deradiff.report import write_report
from deradiff.report.votes import vote_section

TABLE = sweep({"rises": np.array(LAMS), "<b>": -np.array(LAMS)}, lams=LAMS, prompts=20, seeds=2)
VOTED = replace(TABLE, votes=votes_of(60))


def test_the_page_has_a_section_on_votes_where_there_are_some(tmp_path: Path) -> None:
    write_report(TABLE, recommend(TABLE, "rises"), tmp_path / "none.html")
    write_report(VOTED, recommend(VOTED, "rises"), tmp_path / "some.html")
    write_report(VOTED, recommend(VOTED, "votes", "rises"), tmp_path / "chosen.html")
    none, some, chosen = ((tmp_path / f"{name}.html").read_text() for name in ("none", "some", "chosen"))
    assert "People's votes" not in none
    assert "60 votes by 2 raters" in some
    assert "60 votes by 2 raters" in chosen
    assert "<td><b>" not in some


def test_each_tab_has_its_votes_and_no_id_stands_twice(tmp_path: Path) -> None:
    answer = recommend(VOTED, "votes")
    page = write_report({"one": VOTED, "two": VOTED}, {"one": answer, "two": answer}, tmp_path / "tabs.html")
    text = page.read_text()
    assert text.count("60 votes by 2 raters") >= 2
    ids = re.findall(r'\bid="([^"]*)"', text.split("<script", 1)[0])
    assert len(ids) == len(set(ids)) > 10


def test_the_figures_show_the_fit_and_the_agreement() -> None:
    section = vote_section(VOTED)
    assert section is not None
    by_lam = json.loads(section.by_lam)
    assert by_lam["layout"]["meta"]["cursor"]["lams"] == list(LAMS)  # the bar of lam moves a line through it
    (wins,) = by_lam["data"]
    assert wins["x"] == list(LAMS)
    assert wins["y"][0] == pytest.approx(0.5)
    assert section.agreement is not None
    (shares,) = json.loads(section.agreement)["data"]
    assert shares["y"] in (["rises", "&lt;b&gt;"], ["&lt;b&gt;", "rises"])
    assert sum(shares["x"]) == pytest.approx(1)  # what one agrees with, the other doesn't
    assert re.search(r"alpha of -?\d\.\d\d", " ".join(section.sentences)) or len(section.sentences) < 4
