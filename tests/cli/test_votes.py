"""Votes on the command line: the answer, the report, the table."""

import json
import re
from pathlib import Path

import pytest
from tests.analysis.voters import votes_of
from tests.cli.shell import here
from tests.cli.test_json import DOCS, keys_of
from tests.runs.painted import painted

from deradiff.runs.store import Store
from deradiff.runs.votes import add_votes

LAMS = [0.0, 0.5, 1.0]
PROMPTS = [f"prompt {number}" for number in range(8)]


@pytest.fixture
def voted(tmp_path: Path) -> Store:
    store = painted(tmp_path / "run", prompts=PROMPTS, seeds=[0, 1], lams=LAMS)
    add_votes(store, votes_of(60, (-2.0, 2.0, -2.0), lams=LAMS, prompts=8))
    return store


def test_a_run_is_answered_reported_and_exported_by_votes(voted: Store, tmp_path: Path) -> None:
    run = str(voted.folder)
    printed = here("recommend", run, "--objective", "votes").stdout
    assert printed.rstrip().splitlines()[-1].startswith("recommended lam: 0.5: its images are shown to be preferred")
    assert "From 60 votes by 2 raters on 8 prompts" in printed
    found = json.loads(here("recommend", run, "--objective", "votes", "--json").stdout)
    assert found["answers"][0]["votes"]["best"] == 0.5
    assert keys_of(found) - {"votes"} <= set(re.findall(r"`(\w+)`", DOCS.read_text("utf-8")))
    here("report", run, "--objective", "votes")
    assert "People&#39;s votes" in (page := (voted.folder / "report.html").read_text()) or "People's votes" in page
    assert "60 votes" in here("export", run, "--out", str(tmp_path / "votes.csv"), "--format", "votes").stdout
    study = ("--format", "optuna", "--objective", "votes")
    assert "3 trials" in here("export", run, "--out", str(tmp_path / "votes.db"), *study).stdout


def test_what_votes_cant_do_is_an_error_of_a_sentence(voted: Store, tmp_path: Path) -> None:
    run, empty = str(voted.folder), painted(tmp_path / "empty", prompts=PROMPTS, seeds=[0], lams=LAMS)
    assert "no votes yet" in here("recommend", str(empty.folder), "--objective", "votes", code=2).stderr
    assert "objective of their own" in here("recommend", run, "--objective", "votes,hps", code=2).stderr
    assert "votes are people's" in here("score", run, "--rewards", "votes", code=2).stderr
