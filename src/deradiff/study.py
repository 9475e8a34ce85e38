"""A run as an Optuna study, one trial a lam, for Optuna's samplers, plots and dashboard."""

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deradiff.analysis.curves import equivalent_beta
from deradiff.analysis.guards import lower_slack, make_constraints
from deradiff.analysis.recommend import Recommendation
from deradiff.errors import ConfigError, ResultsError, reason_of
from deradiff.results import HasResults, Results, as_results
from deradiff.votes import VOTES
from deradiff.writing import check_replaceable, replacing

NAME = "deradiff"
BEYOND = "beyond the recommended lam"
ATTRIBUTES = ("images", "path_kl", "beta")  # of a trial, beside its mean rewards


def write_study(
    source: Results | HasResults, answer: Recommendation, path: str | Path, *, indices: Sequence[int] | None = None
) -> int:
    """Write a study named ``deradiff`` into an SQLite file, the only study in it.

    A trial's parameter is ``lam``, its values the mean objectives (of votes, the utility), to be maximised. Its
    constraints are by how much each guard is short of being shown to hold (0 or less: it is), and whether the lam lies
    beyond the recommended one,
    so that Optuna's best trial is the recommended lam. Its user attributes are all mean rewards, and where known the
    number of images, their mean path KL in nats, and beta.

    Args:
        source: a run, or a table of results.
        answer: what `deradiff.recommend` says of it.
        path: ends in .db; a file there is replaced once the new one is whole.
        indices: of the lams that become trials; all by default.

    Returns:
        How many trials.

    Raises:
        ConfigError: another kind of file, one that can't be written, a reward named like another attribute, or Optuna
            missing.
        ResultsError: arguments of another type, or an answer for another table.
    """
    results, path = as_results(source), Path(path)
    if not isinstance(answer, Recommendation) or answer.lams != results.lams:
        raise ResultsError(f"answer: expected what deradiff.recommend returns for these lams, got {answer!r:.60}")
    if path.suffix != ".db":
        raise ConfigError(f"can't write a study to {path}: expected a file that ends in .db")
    check_replaceable(path, ConfigError)
    if clash := sorted(set(results.scores) & set(ATTRIBUTES)):
        raise ConfigError(
            f"the reward {clash[0]!r} is named like another attribute of a trial; rename it and score again"
        )
    optuna = _import_optuna()
    trials = _trials(optuna, results, answer, range(len(results.lams)) if indices is None else indices)
    _write(optuna, trials, ["maximize"] * len(answer.criteria.objectives), path)
    return len(trials)


def _trials(optuna: Any, results: Results, answer: Recommendation, indices: Sequence[int]) -> list[Any]:
    criteria = answer.criteria
    slack = lower_slack(make_constraints(results, criteria), results.zero, len(results.lams), criteria.risk)
    objectives = [
        answer.curves[name].score if name == VOTES else np.nanmean(results.scores[name], axis=(0, 1))
        for name in criteria.objectives
    ]
    within = optuna.distributions.FloatDistribution(results.lams[0], results.lams[-1])
    return [
        optuna.create_trial(
            params={"lam": results.lams[index]},
            distributions={"lam": within},
            values=[float(means[index]) for means in objectives],
            user_attrs=_attributes(results, index),
            constraints={name: -float(np.nan_to_num(low[index])) for name, low in slack.items()}
            | _beyond(answer, index),
        )
        for index in indices
    ]


def _beyond(answer: Recommendation, index: int) -> dict[str, float]:
    """How far a lam lies beyond the allowed ones: past a lam where a guard isn't shown to hold, or past the answer."""
    if len(answer.criteria.objectives) > 1:
        return {BEYOND: 0.0 if answer.verdicts[index] == "shown to hold" else 1.0}
    excess = abs(answer.lams[index]) - abs(answer.lam)
    return {BEYOND: 0.0 if index == answer.index else max(excess, -1.0) or 1.0}


def _write(optuna: Any, trials: list[Any], directions: list[str], path: Path) -> None:
    # Written elsewhere first: a name such as "50%.db" means another file in a url, and SQLite leaves temporary files.
    verbosity = optuna.logging.get_verbosity()
    with _write_errors(path), TemporaryDirectory() as folder:
        temporary = Path(folder) / "study.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{temporary}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # creating a study logs at INFO
        try:
            study = optuna.create_study(storage=storage, study_name=NAME, directions=directions)
            study.add_trials(trials)
        finally:
            optuna.logging.set_verbosity(verbosity)
            storage.engine.dispose()
        with replacing(path, ConfigError) as part:
            shutil.copyfile(temporary, part)


@contextmanager
def _write_errors(path: Path) -> Generator[None]:
    """Say what can't be written, such as on a full disk.

    Raises:
        ConfigError: for errors of the data base and of its temporary folder.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError) as error:
        why = getattr(error, "orig", None) or error
        raise ConfigError(
            f"can't write {path} ({reason_of(why)}); what was there is kept: make room, there and for temporary files"
        ) from error


def _attributes(results: Results, index: int) -> dict[str, float]:
    attributes = {name: float(np.nanmean(table[:, :, index])) for name, table in results.scores.items()}
    if count := sum(map(bool, results.images[:, :, index].flat)):
        attributes["images"] = count
    if results.path_kl is not None:
        attributes["path_kl"] = float(np.nanmean(results.path_kl[:, :, index]))
    beta = equivalent_beta(results, results.lams[index])
    return attributes if beta is None else attributes | {"beta": beta}


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("a study needs Optuna; install it: pip install 'deradiff[optuna]'") from error
    return optuna
