"""Laws of the Optuna study: its best trial is the lam that is recommended, and Optuna goes on from there."""

from pathlib import Path

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


def loaded(path: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{path}")


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
        assert told == {name: own[:, :, place].mean() for name, own in table.scores.items()}


def test_of_several_objectives_the_best_trials_are_the_pareto_set(tmp_path: Path) -> None:
    write_study(run(), tmp_path / "s.db", objective="proxy,gold", kl_budget=3.0)
    found = {trial.params["lam"] for trial in loaded(tmp_path / "s.db").best_trials}
    assert (
        found == {lam for lam, _ in recommend(run(), objective="proxy,gold", kl_budget=3.0).pareto} == {0.5, 1.0, 1.5}
    )


def test_optuna_goes_on_from_it(tmp_path: Path) -> None:
    write_study(run(), tmp_path / "s.db", objective="proxy", guard="gold")
    study = optuna.load_study(
        study_name="deradiff", storage=f"sqlite:///{tmp_path / 's.db'}", sampler=optuna.samplers.TPESampler(seed=0)
    )
    study.optimize(lambda trial: trial.suggest_float("lam", 0, 2), n_trials=3)
    assert len(loaded(tmp_path / "s.db").trials) == 8


def test_a_file_is_replaced_once_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.db"
    write_study(run(), path, objective="proxy")
    written = path.read_bytes()
    with pytest.raises(ResultsError, match="no reward 'nothing'"):
        write_study(run(), path, objective="nothing")
    assert path.read_bytes() == written
    write_study(run(), path, objective="gold", places=[0, 2])
    assert [trial.params["lam"] for trial in loaded(path).trials] == [0, 1]
    assert [file.name for file in path.parent.iterdir()] == ["s.db"]
    with pytest.raises(PlanError, match=r"ends in \.db"):
        write_study(run(), tmp_path / "s.csv", objective="proxy")
