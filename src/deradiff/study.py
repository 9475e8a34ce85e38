"""A sweep as an Optuna study, one trial a lam, for whoever goes on with Optuna's samplers, plots and dashboard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deradiff.errors import PlanError
from deradiff.files import replacing
from deradiff.recommend import ask, equivalent_beta
from deradiff.recommend.hold import Holding
from deradiff.results import Results

NAME = "deradiff"
ON_THE_WAY = "a guard fails on the way"


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
    lam that ``recommend`` takes. Attributes of the user: all mean rewards, mean path KL in nats, and beta.

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
        PlanError: another kind of file, one that can't be written, or Optuna missing.
        ResultsError: as ``recommend``.
    """
    if path.suffix != ".db" or path.is_dir():
        raise PlanError(f"can't write a study to {path}: expected a file that ends in .db")
    optuna = _optuna()
    question = ask(objective, guard, kl_budget)
    objectives = [results.scored(name).mean(axis=(0, 1)) for name in question.objectives]
    holding = Holding(results, question)
    margins, allowed = holding.margins(), holding.allowed()
    within = optuna.distributions.FloatDistribution(results.lams[0], results.lams[-1])
    trials = []
    for place in range(len(results.lams)) if places is None else places:
        missed = {name: -float(margin[place]) for name, margin in margins.items()}
        if missed:
            missed[ON_THE_WAY] = float(not allowed[place] and max(missed.values()) <= 0)
        trials.append(
            optuna.create_trial(
                params={"lam": results.lams[place]},
                distributions={"lam": within},
                values=[float(means[place]) for means in objectives],
                user_attrs=_told(results, place),
                constraints=missed or None,
            )
        )
    with replacing(path) as part:
        storage = optuna.storages.RDBStorage(f"sqlite:///{part}")
        study = optuna.create_study(storage=storage, study_name=NAME, directions=["maximize"] * len(objectives))
        study.add_trials(trials)
        storage.engine.dispose()
    return len(trials)


def _told(results: Results, place: int) -> dict[str, float]:
    told = {name: float(table[:, :, place].mean()) for name, table in results.scores.items()}
    if results.path_kl is not None:
        told["path_kl"] = float(results.path_kl[:, :, place].mean())
    beta = equivalent_beta(results, results.lams[place])
    return told if beta is None else told | {"beta": beta}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise PlanError("a study needs Optuna; install it: pip install 'deradiff[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
