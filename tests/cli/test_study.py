"""``deradiff study`` of a run on disk, as a person does it."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from tests.cli.shell import deradiff
from tests.sweep.painted import painted

from deradiff.sweep import Journal
from deradiff.sweep.records import ScoreRecord

LAMS, GUIDANCES = [0, 0.5, 1, 1.5], (3.0, 7.0)


PROMPTS = [f"prompt {number}" for number in range(12)]


def mean(reward: str, guidance: float, lam: float) -> float:
    """The proxy rises, the more the larger the guidance; gold falls from 1 on."""
    return guidance * lam if reward == "proxy" else -4 * max(0.0, lam - 0.5)


@pytest.fixture
def run(tmp_path: Path) -> Journal:
    journal = painted(tmp_path / "run", lams=LAMS, guidances=GUIDANCES, prompts=PROMPTS, seeds=[0])
    plan, rng = journal.plan, np.random.default_rng(0)
    with journal.scoring() as writer:
        for batch in plan.batches():
            for reward in ("proxy", "gold"):
                cells = [(plan.guidances[cell.guidance], plan.lams[cell.lam]) for cell in batch.cells(plan)]
                scores = [mean(reward, float(guidance or 0), lam) + 0.1 * rng.normal() for guidance, lam in cells]
                writer.append(ScoreRecord(batch=batch.index, reward=reward, scores=scores))
    return journal


def test_a_run_becomes_a_study_whose_best_trial_is_the_lam_recommended(run: Journal, tmp_path: Path) -> None:
    out = tmp_path / "study.db"
    asked = (str(run.folder), "--objective", "proxy", "--guard", "gold:-0.5", "--guidance", "7")
    told = deradiff("study", *asked, "--out", str(out))
    assert told.stdout == f"{out}: the study 'deradiff' of 4 trials\n"
    assert not told.stderr
    study = optuna.load_study(study_name="deradiff", storage=f"sqlite:///{out}")
    assert [trial.params["lam"] for trial in study.trials] == LAMS
    scores = run.results(7.0).scores
    assert [trial.value for trial in study.trials] == pytest.approx(scores["proxy"].mean(axis=(0, 1)))
    assert [trial.user_attrs["gold"] for trial in study.trials] == pytest.approx(scores["gold"].mean(axis=(0, 1)))
    assert {trial.user_attrs["images"] for trial in study.trials} == {12}
    assert study.best_trial.params["lam"] == 0.5
    last = deradiff("recommend", *asked).stdout.splitlines()[-1]
    assert last == "recommended lam at guidance 7: 0.5: gold loses at most 0.5, shown at 5% risk"


def test_a_mistake_is_told_in_one_line(run: Journal, tmp_path: Path) -> None:
    asked = (str(run.folder), "--guidance", "7", "--objective", "proxy")
    unknown = deradiff("study", *asked, "--guard", "fame", "--out", str(tmp_path / "s.db"), code=2).stderr
    assert unknown.startswith("Error: no reward 'fame' here; there are: proxy, gold")
    assert "ends in .db" in deradiff("study", *asked, "--out", str(tmp_path / "s.sqlite"), code=2).stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
