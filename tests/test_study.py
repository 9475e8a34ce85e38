"""Laws of the Optuna study: its best trial is the lam that is recommended, and Optuna goes on from there."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from tests.analysis.synthetic import sweep

import deradiff
from deradiff.analysis.criteria import Criteria, Guard, make_criteria
from deradiff.analysis.recommend import Recommendation, recommend_for
from deradiff.errors import ConfigError, ResultsError
from deradiff.results import Results, RewardInfo
from deradiff.study import BEYOND, write_study

LAMS = (0.0, 0.5, 1.0, 1.5, 2.0)
PROXY, GOLD = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.5, 0.4, -2.0, 0.2])
LITTLE, MUCH = Guard("gold", margin=0.1), Guard("gold", margin=9)
RISES = make_criteria("proxy")
HELD = make_criteria("proxy", [LITTLE])
QUIET = {"gold": RewardInfo(direction="none")}  # no business of the alarm


def run(**rest: Any) -> Results:
    """The proxy rises, the gold reward surely falls at 1.5 and is back at 2."""
    kl = np.square(LAMS)
    return sweep({"proxy": PROXY, "gold": GOLD}, lams=LAMS, noise=0.01, prompts=8, path_kl=kl, rewards=QUIET, **rest)


@cache
def answer_of_run(criteria: Criteria) -> tuple[Results, Recommendation]:
    return run(), recommend_for(run(), criteria)


def write(criteria: Criteria, path: Path, **options: Any) -> int:
    """The study of the usual run."""
    return write_study(*answer_of_run(criteria), path, **options)


def loaded(path: Path, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    # that any version of Optuna may open it takes a second to check: once, in test_optuna_goes_on_from_it
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", skip_compatibility_check=True, skip_table_creation=True)
    return optuna.load_study(study_name="deradiff", storage=storage, sampler=sampler)


def kept(study: optuna.Study) -> list[float]:
    """The lams of the trials whose constraints all hold."""
    return [trial.params["lam"] for trial in study.trials if all(value <= 0 for value in trial.constraints.values())]


def check(results: Results, criteria: Criteria, folder: Path) -> tuple[optuna.Study, Recommendation]:
    """Its best trial is the recommended lam, with that lam's score."""
    answer = recommend_for(results, criteria)
    assert write_study(results, answer, folder / "s.db") == len(results.lams)
    study = loaded(folder / "s.db")
    assert study.best_trial.params == {"lam": answer.lam}
    assert study.best_trial.value == pytest.approx(answer.curves[criteria.objectives[0]].score[answer.index])
    (folder / "s.db").unlink()
    return study, answer


@pytest.mark.parametrize(
    ("guards", "budget", "prefer"),
    [
        ([LITTLE], None, "smallest"),
        ([], None, "best"),
        ([MUCH], 2.5, "best"),
        ([MUCH], 2.5, "smallest"),
        ([LITTLE], 0.6, "smallest"),
        ([MUCH], 0.01, "best"),
    ],
)
def test_its_best_trial_is_the_lam_that_is_recommended(
    guards: Sequence[Guard], budget: float | None, prefer: Any, tmp_path: Path
) -> None:
    results, criteria = run(), make_criteria("proxy", guards, kl_budget=budget, prefer=prefer)
    study, answer = check(results, criteria, tmp_path)
    allowed = [lam for lam, verdict in zip(LAMS, answer.verdicts, strict=True) if verdict == "shown to hold"]
    assert set(kept(study)) == {lam for lam in allowed if lam <= answer.lam}
    if guards == [LITTLE] and budget is None:
        assert answer.lam == 1
        assert study.trials[4].constraints["gold"] <= 0  # it holds there again, but not on the way
        assert study.trials[4].constraints[BEYOND] > 0
        assert study.trials[3].constraints["gold"] > 0


@pytest.mark.parametrize("rng_seed", range(3))
def test_where_noise_decides_too(rng_seed: int, tmp_path: Path) -> None:
    """The objective saturates, so that the smallest of lams as good isn't the largest mean; lams on both sides of 0."""
    lams = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    curves = {"proxy": [0.6, 0.5, 0, 0.7, 0.72, 0.73], "gold": [0.1, 0, 0, -0.05, -0.15, -0.4]}
    results = sweep(curves, lams=lams, noise=0.12, prompts=12, seeds=2, rng_seed=rng_seed)
    for guards in ([], [Guard("gold", margin=0.3)]):
        check(results, make_criteria("proxy", guards), tmp_path)


def test_an_alarm_is_among_what_it_keeps_to(tmp_path: Path) -> None:
    results = sweep({"proxy": PROXY, "gold": np.array([0, 0, 0, -2.0, -4])}, lams=LAMS, noise=0.05)
    _, answer = check(results, RISES, tmp_path)
    assert answer.raised_alarms
    assert answer.lam == answer.raised_alarms[0].onset < 2


def test_each_trial_shows_all_that_is_known_of_its_lam(tmp_path: Path) -> None:
    results = run(images=np.full((8, 4, 5), "x.png", dtype=object))
    write_study(results, recommend_for(results, RISES), tmp_path / "s.db")
    for index, trial in enumerate(loaded(tmp_path / "s.db").trials):
        attributes = dict(trial.user_attrs)
        assert attributes.pop("beta", None) == (0.1 / LAMS[index] if index else None)
        assert attributes.pop("path_kl") == LAMS[index] ** 2
        assert attributes.pop("images") == len(results.prompts) * len(results.seeds)
        assert attributes == pytest.approx({name: table[:, :, index].mean() for name, table in results.scores.items()})


def test_of_several_objectives_the_best_trials_are_the_pareto_set(tmp_path: Path) -> None:
    criteria = make_criteria(["proxy", "gold"], kl_budget=3.0)
    write(criteria, tmp_path / "s.db")
    best = {trial.params["lam"] for trial in loaded(tmp_path / "s.db").best_trials}
    assert best == set(recommend_for(run(), criteria).pareto) == {0.5, 1.0, 1.5}


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.GPSampler])
def test_optuna_goes_on_from_it(sampler: type[optuna.samplers.BaseSampler], tmp_path: Path) -> None:
    write(HELD, tmp_path / "s.db")
    storage = f"sqlite:///{tmp_path / 's.db'}"
    study = optuna.load_study(study_name=None, storage=storage, sampler=sampler(seed=0))  # pyright: ignore[reportCallIssue]
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
    write(RISES, path)
    written = path.read_bytes()
    gold = make_criteria("gold")
    with monkeypatch.context() as broken:
        broken.setattr(optuna.Study, "add_trials", lambda self, trials: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(gold, path)
    assert path.read_bytes() == written
    assert list(path.parent.iterdir()) == [path]  # nothing half written is left
    assert write(gold, path, indices=[0, 2]) == 2
    assert list(path.parent.iterdir()) == [path]
    path.rename(tmp_path / "s.db")
    assert [trial.params["lam"] for trial in loaded(tmp_path / "s.db").trials] == [0, 1]


def test_a_study_is_of_an_answer_for_the_same_lams(tmp_path: Path) -> None:
    results, path = run(), tmp_path / "s.db"
    answer = recommend_for(results, RISES)
    source: Any = SimpleNamespace(results=lambda: results)
    assert deradiff.write_study(source, answer, str(path)) == 5
    path.unlink()
    for wrong in (RISES, "proxy", recommend_for(results.select(range(8), [0, 2]), RISES)):
        with pytest.raises(ResultsError, match=r"answer: expected what deradiff\.recommend returns"):
            write_study(results, wrong, path)  # pyright: ignore[reportArgumentType]
    assert not path.exists()


def test_what_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s.csv", "s", "."):
        with pytest.raises(ConfigError, match=r"ends in \.db"):
            write(RISES, tmp_path / name)
    with pytest.raises(ConfigError, match="can't write"):
        write(RISES, Path("/dev/null/s.db"))
    results = run()
    named_like = replace(results, scores={"beta": results.scores["gold"]})
    with pytest.raises(ConfigError, match="'beta' is named like"):
        write_study(named_like, recommend_for(named_like, make_criteria("beta")), tmp_path / "s.db")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'deradiff\[optuna\]'"):
        write(RISES, tmp_path / "s.db")
