"""Run folders that can't answer: each is told in one line with what is wrong and what to do, and code 2."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.shell import deradiff
from tests.sweep.painted import painted

from deradiff.analysis import messages
from deradiff.analysis.criteria import Guard
from deradiff.analysis.recommend import recommend
from deradiff.sweep import Journal
from deradiff.sweep.records import ScoreRecord

SOUND: dict[str, Any] = {"prompts": ["one", "two"], "seeds": [0, 1], "lams": [0, 0.5, 1]}  # 12 images, 3 a batch
ASKED = ("--objective", "proxy")
Harm = Callable[[Journal], None]


def scored(folder: Path, **changes: Any) -> Journal:
    """A painted run, and a reward proxy of all its images."""
    journal = painted(folder, **{**SOUND, **changes})
    record(journal, "proxy", journal.plan.batch_count)
    return journal


def record(journal: Journal, reward: str, batches: int, rise: float = 1) -> None:
    with journal.scoring() as writer:
        for batch in range(batches):
            scores = [rise * batch * place for place in range(journal.plan.batch(batch).count(journal.plan))]
            writer.append(ScoreRecord(batch=batch, reward=reward, scores=scores))


def in_part(journal: Journal) -> None:
    record(journal, "hps", 3)


def equal(journal: Journal) -> None:
    record(journal, "flat", 4, rise=0)


def no_numbers(journal: Journal) -> None:
    lines = [json.loads(line) for line in journal.scores.path.read_text().splitlines()]
    lines[1]["scores"][0], lines[2]["scores"][1] = float("nan"), float("inf")
    journal.scores.path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def null(journal: Journal) -> None:
    journal.scores.path.write_text(journal.scores.path.read_text().replace("0.0", "null", 1))


def no_image(journal: Journal) -> None:
    min(journal.folder.rglob("*.png")).unlink()


def no_record(journal: Journal) -> None:
    path = journal.folder / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def nothing(journal: Journal) -> None:
    """The plan alone is at fault, or the question."""


def unscored(journal: Journal) -> None:
    journal.scores.path.unlink()


CASES: list[tuple[dict[str, Any], Harm, tuple[str, ...], str]] = [
    ({"lams": [0]}, nothing, ASKED, "one lam only, 0: nothing to compare; sweep lam = 0 and others into a new folder"),
    ({"lams": [0.5, 1]}, nothing, ASKED, "lam = 0, is not among the lams 0.5, 1; sweep it with them into a new folder"),
    ({"prompts": ["one"]}, nothing, ASKED, "one prompt only: .* sweep two or more into a new folder"),
    ({}, no_numbers, ASKED, "proxy: 2 of 12 scores in .*scores.jsonl are nan or infinite.*; delete .* --rewards proxy"),
    ({}, null, ASKED, "scores.jsonl, line 1, is damaged .*; delete that line"),
    ({}, no_image, ASKED, "lacks 1 of 12 images; run .*deradiff sweep"),
    ({}, no_record, ASKED, "lacks 3 of 12 images; run .*deradiff sweep"),
    ({}, in_part, ("--objective", "hps"), "3 of 12 images have no score of hps; .*deradiff score RUN --rewards hps"),
    ({}, in_part, (*ASKED, "--guard", "hps:-1%"), "3 of 12 images have no score of hps; .* --rewards hps"),
    (
        {},
        nothing,
        ("--objective", "fame"),
        "no reward 'fame' here; there are: proxy; choose one, or run deradiff score",
    ),
    ({}, nothing, (*ASKED, "--guard", "fame"), "no reward 'fame' here; there are: proxy; choose one"),
    ({}, unscored, ASKED, "no reward 'proxy' here; there are: none; .* run deradiff score"),
]


@pytest.mark.parametrize(("plan", "harm", "asked", "told"), CASES)
def test_a_run_that_cannot_answer_is_told_in_one_line(
    tmp_path: Path, plan: dict[str, Any], harm: Harm, asked: tuple[str, ...], told: str
) -> None:
    harm(scored(tmp_path / "run", **plan))
    done = deradiff("recommend", str(tmp_path / "run"), *asked, code=2)
    assert done.stdout == ""
    assert re.fullmatch(rf"Error: .*{told}.*\n", done.stderr), done.stderr


def test_a_reward_scored_in_part_is_noted_where_another_is_asked_for(tmp_path: Path) -> None:
    in_part(scored(tmp_path / "run"))
    said = deradiff("recommend", str(tmp_path / "run"), *ASKED).stdout.splitlines()
    assert any(line.startswith("Note: Left out: 3 of 12 images have no score of hps") for line in said)
    assert said[-1].startswith("recommended lam: ")


def test_an_objective_that_is_the_same_at_every_lam_leaves_the_reference_and_says_why(tmp_path: Path) -> None:
    equal(scored(tmp_path / "run"))
    said = deradiff("recommend", str(tmp_path / "run"), "--objective", "flat").stdout.splitlines()
    assert "Note: flat is the same at every lam: these scores can't choose a lam." in said
    assert said[-1].startswith("recommended lam: 0: ")


def test_the_answer_ends_on_the_lam_after_other_risks_and_what_would_settle_it(tmp_path: Path) -> None:
    """Twelve prompts, a proxy that rises, a guard of which little is known."""
    prompts = [f"prompt {number}" for number in range(12)]
    journal = painted(tmp_path / "run", **{**SOUND, "prompts": prompts, "seeds": [0]})
    rng = np.random.default_rng(0)
    with journal.scoring() as writer:
        for batch in journal.plan.batches():
            lams = [journal.plan.lams[cell.lam] for cell in batch.cells(journal.plan)]
            for reward, slope, noise in (("proxy", 1, 0.1), ("gold", -0.05, 0.2)):
                scores = [5 + slope * lam + noise * rng.normal() for lam in lams]
                writer.append(ScoreRecord(batch=batch.index, reward=reward, scores=scores))
    command = ("recommend", str(tmp_path / "run"), *ASKED, "--guard", "gold:-4%")
    said = deradiff(*command).stdout
    answer = recommend(journal.results(), "proxy", [Guard("gold", margin=0.04, relative=True, both=False)])
    assert f"At other risks: {messages.by_risk(answer)}\n" in said
    assert f"To settle it: {messages.to_settle(answer)}\n" in said
    assert said.splitlines()[-1] == f"recommended {messages.headline(answer)}"
    bold = deradiff(*command, "--risk", "0.5", "--prefer", "best").stdout.splitlines()[-1]
    assert bold.startswith(f"recommended lam: {answer.lams_by_risk[0.5]:g}")
    assert answer.lams_by_risk[0.5] > answer.lam
