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


def test_the_figures_show_the_fit_and_the_agreement() -> None:
    section = vote_section(VOTED)
    assert section is not None
    (wins,) = json.loads(section.by_lam)["data"]
    assert wins["x"] == list(LAMS)
    assert wins["y"][0] == pytest.approx(0.5)
    assert section.agreement is not None
    (shares,) = json.loads(section.agreement)["data"]
    assert shares["y"] in (["rises", "&lt;b&gt;"], ["&lt;b&gt;", "rises"])
    assert sum(shares["x"]) == pytest.approx(1)  # what one agrees with, the other doesn't
    assert re.search(r"alpha of -?\d\.\d\d", " ".join(section.sentences)) or len(section.sentences) < 4
