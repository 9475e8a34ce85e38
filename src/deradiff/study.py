"""A sweep as an Optuna study, one trial a lam, for whoever goes on with Optuna's samplers, plots and dashboard."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deradiff.errors import PlanError
from deradiff.files import replacing
from deradiff.recommend import equivalent_beta, recommend
from deradiff.recommend.hold import Holding
from deradiff.results import Results

NAME = "deradiff"
ON_THE_WAY = "a guard fails on the way"
TOLD = ("images", "path_kl", "beta")  # of a trial, beside its mean rewards


def write_study(
    results: Results,
    path: Path,
    *,
    objective: str,
    guard: str | None = None,
    kl_budget: float | None = None,
    places: Sequence[int] | None = None,
) -> int:
    """Write a study named ``deradiff`` into an SQLite file, its only one.

    A trial's parameter is ``lam``, its values the mean objectives, to be maximised; its constraints are by how much
    each guard fails (0 or less: it doesn't, by the test that ``recommend`` makes), so that Optuna's best trial is the
    lam that ``recommend`` takes. Attributes of the user: all mean rewards, and where known the number of images, their
    mean path KL in nats, and beta.

    Args:
        results: a sweep with lam = 0 among its lams.
        path: ends in .db; a file there is replaced once the new one is whole.
        objective: as `deradiff.recommend.recommend` takes it.
        guard: likewise.
        kl_budget: likewise.
        places: of the lams that become trials; all by default.

    Returns:
        How many trials.

    Raises:
        PlanError: another kind of file, one that can't be written, a reward named like another attribute, or Optuna
            missing.
        ResultsError: as ``recommend``.
    """
    if path.suffix != ".db" or path.is_dir():
        raise PlanError(f"can't write a study to {path}: expected a file that ends in .db")
    if clash := sorted(set(results.scores) & set(TOLD)):
        raise PlanError(f"the reward {clash[0]!r} is named like what a trial tells beside; rename it and score again")
    optuna = _optuna()
    choice = recommend(results, objective=objective, guard=guard, kl_budget=kl_budget)
    margins = Holding(results, choice.question).margins()
    objectives = [results.scores[name].mean(axis=(0, 1)) for name in choice.question.objectives]
    within = optuna.distributions.FloatDistribution(results.lams[0], results.lams[-1])
    trials = []
    for place in range(len(results.lams)) if places is None else places:
        missed = {name: -float(margin[place]) for name, margin in margins.items()}
        if missed:
            missed[ON_THE_WAY] = float(not choice.allowed[place] and max(missed.values()) <= 0)
        trials.append(
            optuna.create_trial(
                params={"lam": results.lams[place]},
                distributions={"lam": within},
                values=[float(means[place]) for means in objectives],
                user_attrs=_told(results, place),
                constraints=missed or None,
            )
        )
    _write(optuna, trials, ["maximize"] * len(objectives), path)
    return len(trials)


def _write(optuna: Any, trials: list[Any], directions: list[str], path: Path) -> None:
    # Not made beside ``path``: a name such as "50%.db" isn't what its url says, and SQLite leaves files of its own.
    told = optuna.logging.get_verbosity()
    with TemporaryDirectory() as folder:
        made = Path(folder) / "study.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{made}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # making a study is told as news
        try:
            study = optuna.create_study(storage=storage, study_name=NAME, directions=directions)
            study.add_trials(trials)
        finally:
            optuna.logging.set_verbosity(told)
            storage.engine.dispose()
        with replacing(path) as part:
            shutil.copyfile(made, part)


def _told(results: Results, place: int) -> dict[str, float]:
    told = {name: float(table[:, :, place].mean()) for name, table in results.scores.items()}
    images = results.images[:, :, place]
    if all(images.flat):  # what a search filled in has none
        told["images"] = images.size
    if results.path_kl is not None:
        told["path_kl"] = float(results.path_kl[:, :, place].mean())
    beta = equivalent_beta(results, results.lams[place])
    return told if beta is None else told | {"beta": beta}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise PlanError("a study needs Optuna; install it: pip install 'deradiff[optuna]'") from error
    return optuna
