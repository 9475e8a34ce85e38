"""Laws of the Optuna study: its best trial is the lam that is recommended, and Optuna goes on from there."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from tests.recommend.subject import results

from deradiff.errors import PlanError, ResultsError
from deradiff.recommend import recommend
from deradiff.results import Results
from deradiff.study import ON_THE_WAY, write_study

LAMS = (0.0, 0.5, 1.0, 1.5, 2.0)
PROXY, GOLD = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.5, 0.4, -2.0, 0.2])


def run() -> Results:
    """The proxy rises, the gold reward surely falls at 1.5 and is back at 2."""
    return results({"proxy": PROXY, "gold": GOLD}, lams=LAMS, noise=0.01, path_kl=np.square(LAMS))


def loaded(path: Path, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    return optuna.load_study(study_name="deradiff", storage=f"sqlite:///{path}", sampler=sampler)


@pytest.mark.parametrize(("guard", "budget"), [("gold", None), (None, None), ("gold:-3", 2.0), ("gold", 0.5)])
def test_its_best_trial_is_the_lam_that_is_recommended(guard: str | None, budget: float | None, tmp_path: Path) -> None:
    assert write_study(run(), tmp_path / "s.db", objective="proxy", guard=guard, kl_budget=budget) == 5
    wanted = recommend(run(), objective="proxy", guard=guard, kl_budget=budget)
    study = loaded(tmp_path / "s.db")
    best = study.best_trial
    assert best.params == {"lam": wanted.lam}
    assert best.value == pytest.approx(wanted.curves["proxy"].score[wanted.place].mean)
    held = [all(value <= 0 for value in trial.constraints.values()) for trial in study.trials]
    assert held == list(wanted.allowed)
    if guard == "gold" and budget is None:
        assert study.trials[4].constraints[ON_THE_WAY] > 0


def test_each_trial_tells_all_that_is_known_of_its_lam(tmp_path: Path) -> None:
    write_study(run(), tmp_path / "s.db", objective="proxy")
    table = run()
    for place, trial in enumerate(loaded(tmp_path / "s.db").trials):
        told = dict(trial.user_attrs)
        assert told.pop("beta", None) == (0.1 / LAMS[place] if place else None)
        assert told.pop("path_kl") == LAMS[place] ** 2
        assert told.pop("images") == len(table.prompts) * len(table.seeds)
        assert told == {name: own[:, :, place].mean() for name, own in table.scores.items()}


def test_of_several_objectives_the_best_trials_are_the_pareto_set(tmp_path: Path) -> None:
    write_study(run(), tmp_path / "s.db", objective="proxy,gold", kl_budget=3.0)
    found = {trial.params["lam"] for trial in loaded(tmp_path / "s.db").best_trials}
    assert (
        found == {lam for lam, _ in recommend(run(), objective="proxy,gold", kl_budget=3.0).pareto} == {0.5, 1.0, 1.5}
    )


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.GPSampler])
def test_optuna_goes_on_from_it(sampler: type[optuna.samplers.BaseSampler], tmp_path: Path) -> None:
    write_study(run(), tmp_path / "s.db", objective="proxy", guard="gold")
    study = loaded(tmp_path / "s.db", sampler(seed=0))  # pyright: ignore[reportCallIssue]
    known = study.trials[0]
    for _ in range(2):
        trial = study.ask(dict(known.distributions))
        assert 0 <= trial.params["lam"] <= 2
        for name in known.constraints:
            trial.set_constraint(name, 0)
        study.tell(trial, 5)
    assert loaded(tmp_path / "s.db").best_value == 5


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "50%?.db"
    write_study(run(), path, objective="proxy")
    written = path.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(optuna.Study, "add_trials", lambda self, trials: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_study(run(), path, objective="gold")
    assert path.read_bytes() == written
    path.with_name(f".{path.name}.part").write_bytes(written)  # left by one that was killed
    assert write_study(run(), path, objective="gold", places=[0, 2]) == 2
    assert list(path.parent.iterdir()) == [path]
    path.rename(tmp_path / "s.db")
    assert [trial.params["lam"] for trial in loaded(tmp_path / "s.db").trials] == [0, 1]


@pytest.mark.parametrize(
    ("table", "asked"),
    [
        (run(), {"objective": "nothing"}),
        (run(), {"objective": "proxy", "guard": "nothing"}),
        (run(), {"objective": "proxy", "guard": "proxy"}),
        (replace(run(), unscored={"hps": 3}), {"objective": "proxy", "guard": "hps"}),
        (replace(run(), lams=(0.1, *LAMS[1:])), {"objective": "proxy"}),
        (replace(run(), path_kl=None), {"objective": "proxy", "kl_budget": 1.0}),
        (results({"proxy": PROXY[:1]}, lams=(0.0,)), {"objective": "proxy"}),
        (results({"proxy": 0 * PROXY}, lams=LAMS, noise=0, level=0), {"objective": "proxy"}),
    ],
)
def test_what_recommend_refuses_it_refuses_in_the_same_words(
    table: Results, asked: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ResultsError) as refusal:
        recommend(table, **asked)
    with pytest.raises(ResultsError, match=f"^{re.escape(str(refusal.value))}$"):
        write_study(table, tmp_path / "s.db", **asked)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s.csv", "s", "."):
        with pytest.raises(PlanError, match=r"ends in \.db"):
            write_study(run(), tmp_path / name, objective="proxy")
    with pytest.raises(PlanError, match="can't write"):
        write_study(run(), Path("/dev/null/s.db"), objective="proxy")
    table = run()
    with pytest.raises(PlanError, match="'beta' is named like"):
        write_study(replace(table, scores={"beta": table.scores["gold"]}), tmp_path / "s.db", objective="beta")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PlanError, match=r"pip install 'deradiff\[optuna\]'"):
        write_study(run(), tmp_path / "s.db", objective="proxy")
