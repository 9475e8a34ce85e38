"""``recommend --json``: one object of plain values, under keys that the docs name."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.shell import here
from tests.cli.test_bad_journals import record
from tests.runs.painted import painted

from deradiff.analysis.as_json import as_json
from deradiff.analysis.criteria import Guard
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.analysis.statistics import Interval
from deradiff.results import Results
from deradiff.runs.results import journalled_images

DOCS = Path(__file__).parents[2] / "docs" / "recommend.md"


def results() -> Results:
    rng, lams = np.random.default_rng(1), np.array([0, 0.5, 1.0])
    scores = {name: slope * lams + 0.1 * rng.normal(size=(12, 2, 3)) for name, slope in (("up", 1), ("down", -0.01))}
    return Results(prompts=[f"p{n}" for n in range(12)], seeds=[0, 1], lams=lams.tolist(), scores=scores)


@pytest.fixture
def answer() -> Recommendation:
    return recommend(results(), "up", [Guard("down", margin=0.5)])


def keys_of(value: Any) -> set[str]:
    """All keys of objects that aren't named by people."""
    if isinstance(value, dict):
        own = set() if value.keys() & {"up", "down", "r", "0.05"} else set(value)
        return own.union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_the_object_says_what_the_answer_says(answer: Recommendation) -> None:
    found = as_json(answer)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["lam"] == answer.lam == 1
    assert [entry["verdict"] for entry in found["lams"]] == list(answer.verdicts)
    assert found["lams"][1]["rewards"]["down"]["change"]["mean"] == answer.curves["down"].change[1].mean
    assert found["lams_by_risk"]["0.05"] == answer.lams_by_risk[0.05]
    assert found["criteria"]["guards"][0]["margin"] == 0.5


def test_what_is_no_number_is_null(answer: Recommendation) -> None:
    nowhere = Interval(mean=np.float64(np.nan), low=-np.inf, high=np.inf)
    found = as_json(dataclasses.replace(answer, gain=nowhere))
    assert found["gain"] == {"mean": None, "low": None, "high": None}


def test_the_command_prints_one_object_that_other_programs_read(tmp_path: Path) -> None:
    store = painted(tmp_path / "caf\u00e9", prompts=["one", "two", "three"], seeds=[0], lams=[0, 1], guidances=[1, 2])
    record(store, "r", list(journalled_images(store).values()))
    printed = here("recommend", str(store.folder), "--objective", "r", "--json").stdout
    tool = subprocess.run(
        [sys.executable, "-m", "json.tool"], input=printed, text=True, capture_output=True, check=True
    )
    found = json.loads(tool.stdout)
    assert found["schema"] == 1
    assert found["run"] == str(store.folder)
    assert [one["guidance"] for one in found["answers"]] == [1, 2]
    assert keys_of(found) <= set(re.findall(r"`(\w+)`", DOCS.read_text("utf-8")))
    one = json.loads(here("recommend", str(store.folder), "--objective", "r", "--guidance", "2", "--json").stdout)
    assert one["answers"] == found["answers"][1:]
    assert here("recommend", str(store.folder), "--objective", "x", "--json", code=2).stdout == ""
