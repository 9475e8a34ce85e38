"""``deradiff export --format optuna`` of a run on disk, as a person does it."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from tests.cli.shell import here
from tests.runs.painted import painted

from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import journalled_images, load_results
from deradiff.runs.store import Store

STUDY = ("export", "--format", "optuna")
LAMS, GUIDANCES = [0, 0.5, 1, 1.5], (3.0, 7.0)


PROMPTS = [f"prompt {number}" for number in range(12)]


def mean(reward: str, guidance: float, lam: float) -> float:
    """The proxy rises, the more the larger the guidance; gold falls from 1 on."""
    return guidance * lam if reward == "proxy" else -4 * max(0.0, lam - 0.5)


@pytest.fixture
def run(tmp_path: Path) -> Store:
    store = painted(tmp_path / "run", lams=LAMS, guidances=GUIDANCES, prompts=PROMPTS, seeds=[0])
    images, rng = journalled_images(store), np.random.default_rng(0)
    with store.scoring() as writer:
        for reward in ("proxy", "gold"):
            values = [mean(reward, cell.guidance or 0, cell.lam) + 0.1 * rng.normal() for cell in images]
            keys, digests = (tuple(getattr(image, name) for image in images.values()) for name in ("key", "sha256"))
            writer.append(ScoreRecord(reward=reward, keys=keys, sha256=digests, scores=tuple(values)))
    return store


def trials(path: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="deradiff", storage=f"sqlite:///{path}").trials


def test_a_run_becomes_a_study_whose_best_trial_is_the_lam_recommended(run: Store, tmp_path: Path) -> None:
    out = tmp_path / "study.db"
    asked = (str(run.folder), "--objective", "proxy", "--guard", "gold:-0.5", "--guidance", "7")
    told = here(*STUDY, *asked, "--out", str(out))
    assert told.stdout == f"{out}: the study 'deradiff' of 4 trials\n"
    assert not told.stderr
    study = optuna.load_study(study_name="deradiff", storage=f"sqlite:///{out}")
    assert [trial.params["lam"] for trial in study.trials] == LAMS
    scores = load_results(run, 7.0).scores
    assert [trial.value for trial in study.trials] == pytest.approx(scores["proxy"].mean(axis=(0, 1)))
    assert [trial.user_attrs["gold"] for trial in study.trials] == pytest.approx(scores["gold"].mean(axis=(0, 1)))
    assert {trial.user_attrs["images"] for trial in study.trials} == {12}
    assert study.best_trial.params["lam"] == 0.5
    last = here("recommend", *asked).stdout.splitlines()[-1]
    assert last == "recommended lam at guidance 7: 0.5: gold loses at most 0.5, shown at 5% risk"


def test_a_run_that_grew_at_some_seeds_becomes_a_study_of_what_is_there(run: Store, tmp_path: Path) -> None:
    """Six prompts have a second seed at two lams: trials tell the means of the images that there are."""
    more = painted(run.folder, lams=LAMS[:2], guidances=[7.0], prompts=PROMPTS[:6], seeds=[1])
    images = {cell: image for cell, image in journalled_images(more).items() if cell.seed == 1}
    with more.scoring() as writer:
        for reward in ("proxy", "gold"):
            values = tuple(mean(reward, 7.0, cell.lam) for cell in images)
            keys, digests = (tuple(getattr(image, name) for image in images.values()) for name in ("key", "sha256"))
            writer.append(ScoreRecord(reward=reward, keys=keys, sha256=digests, scores=values))
    here(*STUDY, str(run.folder), "--objective", "proxy", "--guidance", "7", "--out", str(tmp_path / "s.db"))
    table = load_results(run, 7.0).scores["proxy"]
    assert np.isnan(table).sum() == 12 * 2 * 4 - 12 * 4 - 12
    found = trials(tmp_path / "s.db")
    assert [trial.params["lam"] for trial in found] == LAMS
    assert [trial.value for trial in found] == pytest.approx(np.nanmean(table, axis=(0, 1)))
    assert [trial.user_attrs.get("images") for trial in found] == [18, 18, 12, 12]


def test_a_mistake_is_reported_in_one_line(run: Store, tmp_path: Path) -> None:
    asked = (str(run.folder), "--guidance", "7", "--objective", "proxy")
    unknown = here(*STUDY, *asked, "--guard", "fame", "--out", str(tmp_path / "s.db"), code=2).stderr
    assert unknown.startswith("Error: no reward 'fame' here; expected one of: proxy, gold")
    assert "ends in .db" in here(*STUDY, *asked, "--out", str(tmp_path / "s.sqlite"), code=2).stderr
    assert "choose one of them" in here(*(*STUDY, *asked[:1], *asked[3:]), "--out", "s.db", code=2).stderr
    lacking = here(*STUDY, str(run.folder), "--out", str(tmp_path / "s.db"), code=2).stderr
    assert "add --objective" in lacking
    extra = here("export", *asked, "--out", str(tmp_path / "s.csv"), code=2).stderr
    assert extra.startswith("Error: --objective, --guidance belong to --format optuna")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
