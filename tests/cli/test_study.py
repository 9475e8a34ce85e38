"""``deradiff study`` of a run on disk, as a person does it."""

from pathlib import Path

import optuna
import pytest
from tests.cli.shell import deradiff
from tests.sweep.painted import painted

from deradiff.sweep import Journal
from deradiff.sweep.records import ScoreRecord

LAMS, GUIDANCES = [0, 0.5, 1, 1.5], (3.0, 7.0)


def mean(reward: str, guidance: float, lam: float) -> float:
    """The proxy rises, the more the larger the guidance; gold falls from 1 on."""
    return guidance * lam if reward == "proxy" else -4 * max(0.0, lam - 0.5)


@pytest.fixture
def run(tmp_path: Path) -> Journal:
    journal = painted(tmp_path / "run", lams=LAMS, guidances=GUIDANCES)
    plan = journal.plan
    with journal.scoring() as writer:
        for batch in plan.batches():
            for reward in ("proxy", "gold"):
                cells = [(plan.guidances[cell.guidance], plan.lams[cell.lam]) for cell in batch.cells(plan)]
                scores = [mean(reward, float(guidance or 0), lam) for guidance, lam in cells]
                writer.append(ScoreRecord(batch=batch.index, reward=reward, scores=scores))
    return journal


def test_a_run_becomes_a_study_whose_best_trial_is_the_lam_recommended(run: Journal, tmp_path: Path) -> None:
    out = tmp_path / "study.db"
    asked = (str(run.folder), "--objective", "proxy", "--guard", "gold", "--guidance", "7")
    told = deradiff("study", *asked, "--out", str(out))
    assert told.stdout == f"{out}: the study 'deradiff' of 4 trials\n"
    assert not told.stderr
    study = optuna.load_study(study_name="deradiff", storage=f"sqlite:///{out}")
    assert [trial.params["lam"] for trial in study.trials] == LAMS
    assert [trial.value for trial in study.trials] == [mean("proxy", 7, lam) for lam in LAMS]
    assert [trial.user_attrs["gold"] for trial in study.trials] == [mean("gold", 7, lam) for lam in LAMS]
    assert {trial.user_attrs["images"] for trial in study.trials} == {12}
    assert study.best_trial.params["lam"] == 0.5
    assert deradiff("recommend", *asked).stdout.endswith("recommended lam at guidance 7: 0.5\n")


def test_a_mistake_is_told_in_one_line(run: Journal, tmp_path: Path) -> None:
    asked = (str(run.folder), "--guidance", "7", "--objective", "proxy")
    unknown = deradiff("study", *asked, "--guard", "fame", "--out", str(tmp_path / "s.db"), code=2).stderr
    assert unknown.startswith("Error: no reward 'fame' here; there are: proxy, gold")
    assert "ends in .db" in deradiff("study", *asked, "--out", str(tmp_path / "s.sqlite"), code=2).stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
