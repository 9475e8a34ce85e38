"""A sweep as an Optuna study, one trial a lam, for whoever goes on with Optuna's samplers, plots and dashboard."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deradiff.analysis.criteria import Criteria
from deradiff.analysis.curves import equivalent_beta
from deradiff.analysis.guards import constraints, lower_slack
from deradiff.analysis.recommend import Recommendation, recommend_for
from deradiff.errors import ConfigError
from deradiff.io import replacing
from deradiff.results import Results

NAME = "deradiff"
BEYOND = "beyond the recommended lam"
ATTRIBUTES = ("images", "path_kl", "beta")  # of a trial, beside its mean rewards


def write_study(results: Results, criteria: Criteria, path: Path, *, indices: Sequence[int] | None = None) -> int:
    """Write a study named ``deradiff`` into an SQLite file, its only one.

    A trial's parameter is ``lam``, its values the mean objectives, to be maximised. Its constraints are by how much
    each guard is short of being shown to hold (0 or less: it is), and whether the lam lies beyond the recommended one,
    so that Optuna's best trial is the lam that ``recommend`` takes. Attributes of the user: all mean rewards, and where
    known the number of images, their mean path KL in nats, and beta.

    Args:
        results: scores with lam = 0 among their lams.
        criteria: the question.
        path: ends in .db; a file there is replaced once the new one is whole.
        indices: of the lams that become trials; all by default.

    Returns:
        How many trials.

    Raises:
        ConfigError: another kind of file, one that can't be written, a reward named like another attribute, or Optuna
            missing.
        ResultsError: as ``recommend``.
    """
    if path.suffix != ".db" or path.is_dir():
        raise ConfigError(f"can't write a study to {path}: expected a file that ends in .db")
    if clash := sorted(set(results.scores) & set(ATTRIBUTES)):
        raise ConfigError(
            f"the reward {clash[0]!r} is named like another attribute of a trial; rename it and score again"
        )
    optuna = _optuna()
    answer = recommend_for(results, criteria)
    slack = lower_slack(constraints(results, criteria), results.zero, len(results.lams), criteria.risk)
    objectives = [np.nanmean(results.scores[name], axis=(0, 1)) for name in criteria.objectives]
    within = optuna.distributions.FloatDistribution(results.lams[0], results.lams[-1])
    trials = [
        optuna.create_trial(
            params={"lam": results.lams[index]},
            distributions={"lam": within},
            values=[float(means[index]) for means in objectives],
            user_attrs=_attributes(results, index),
            constraints={name: -float(np.nan_to_num(low[index])) for name, low in slack.items()}
            | _beyond(answer, index),
        )
        for index in (range(len(results.lams)) if indices is None else indices)
    ]
    _write(optuna, trials, ["maximize"] * len(objectives), path)
    return len(trials)


def _beyond(answer: Recommendation, index: int) -> dict[str, float]:
    """How far a lam lies beyond those that may be taken: past a lam where a guard isn't shown, or past the answer."""
    if len(answer.criteria.objectives) > 1:
        return {BEYOND: 0.0 if answer.verdicts[index] == "shown to hold" else 1.0}
    taken = answer.lams[answer.index]
    return {BEYOND: 0.0 if index == answer.index else max(abs(answer.lams[index]) - abs(taken), -1.0) or 1.0}


def _write(optuna: Any, trials: list[Any], directions: list[str], path: Path) -> None:
    # Not made beside ``path``: a name such as "50%.db" isn't what its url says, and SQLite leaves files of its own.
    verbosity = optuna.logging.get_verbosity()
    with TemporaryDirectory() as folder:
        made = Path(folder) / "study.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{made}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # making a study is told as news
        try:
            study = optuna.create_study(storage=storage, study_name=NAME, directions=directions)
            study.add_trials(trials)
        finally:
            optuna.logging.set_verbosity(verbosity)
            storage.engine.dispose()
        with replacing(path, ConfigError) as part:
            shutil.copyfile(made, part)


def _attributes(results: Results, index: int) -> dict[str, float]:
    attributes = {name: float(np.nanmean(table[:, :, index])) for name, table in results.scores.items()}
    if count := sum(map(bool, results.images[:, :, index].flat)):
        attributes["images"] = count
    if results.path_kl is not None:
        attributes["path_kl"] = float(np.nanmean(results.path_kl[:, :, index]))
    beta = equivalent_beta(results, results.lams[index])
    return attributes if beta is None else attributes | {"beta": beta}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("a study needs Optuna; install it: pip install 'deradiff[optuna]'") from error
    return optuna
