"""Are the figures beside a recommended lam right after choosing? Part of benchmarks/answer.py.

Objectives of known curves (flat, rising, saturating, with a peak) and a guard of each kind. Counted are the intervals
that hold the truth: of the gain at the candidate, of the guard's change there, of the right lam; and the bias of the
gain over all runs, in standard deviations of the objective between images.
"""

from itertools import product
from typing import Any

import numpy as np
from truths import LAMS, LAST_HELD, Floats, Truth

from deradiff import Guard, Results
from deradiff.analysis.criteria import make_criteria
from deradiff.analysis.curves import paired_changes
from deradiff.analysis.guards import reached
from deradiff.analysis.power import prompts_to_show
from deradiff.analysis.recommend import BEST_ESTIMATE, decide
from deradiff.analysis.statistics import intervals

RISK = 0.05
REPETITIONS, AGAIN, CLOSE = 400, 4000, 0.04  # a bias that is larger may be noise: it is measured again
GRID = np.array(LAMS)
OBJECTIVES = {
    "flat": 0 * GRID,
    "rising": 0.8 * GRID,
    "saturating": 0.8 * (1 - np.exp(-4 * GRID)),
    "peak": 0.8 * (1 - (GRID / 0.5 - 1) ** 2),
}


def objective_scores(curve: Floats, count: int, seeds: int, rng: np.random.Generator) -> Floats:
    """Scores (count, S, L) of standard deviation about 1 between images; prompts react by half as much again."""
    factor = rng.gamma(4, 0.25, size=(count, 1, 1))
    level, shared = rng.normal(size=(count, 1, 1)), rng.normal(size=(count, seeds, 1))
    own = rng.normal(size=(count, seeds, len(GRID)))
    own[..., 0] = 0
    return 0.7 * level + 0.7 * shared + 0.5 * own + factor * curve


def cells() -> list[tuple[str, Truth | None, int]]:
    """Objective, guard, prompts."""
    guards = [
        None,
        Truth("gaussian", "linear", "alike", 0.2, 1),
        Truth("exponential", "quadratic", "exponential", 0.2, 4),
        Truth("binary", "linear", "few", 0.2, 4),
    ]
    return list(product(OBJECTIVES, guards, (5, 10, 32, 100)))


def coverage(name: str, truth: Truth | None, prompts: int, seed: int) -> dict[str, Any]:
    """One cell."""
    row = _coverage(name, truth, prompts, seed, REPETITIONS)
    return _coverage(name, truth, prompts, seed, AGAIN) if abs(row["gain_bias"]) > CLOSE else row


def _coverage(name: str, truth: Truth | None, prompts: int, seed: int, repetitions: int) -> dict[str, Any]:
    rng, curve = np.random.default_rng(seed), OBJECTIVES[name]
    guards = [] if truth is None else [Guard("guard", margin=truth.margin, relative=True)]
    question = make_criteria("objective", guards, risk=RISK)
    held = np.ones(len(GRID), bool) if truth is None else np.arange(len(GRID)) <= LAST_HELD
    right = int(np.where(reached(held, 0), curve, -np.inf).argmax())
    gains, gain_held, change_held, lam_held, errors, deviations = [], [], [], [], [], []
    for _ in range(repetitions):
        results = _results(curve, truth, prompts, rng)
        decision = decide(results, question)
        candidate = decision.choice.candidate
        low, high = decision.interval
        lam_held.append(low <= LAMS[right] <= high)
        deviations.append(results.scores["objective"][:, :, 0].std())
        errors.append(0.0 if decision.gain is None else decision.gain.mean - curve[candidate])  # none is 0, and right
        if decision.gain is not None:
            gains.append(candidate)
            gain_held.append(decision.gain.low <= curve[candidate] <= decision.gain.high)
        if truth is not None and candidate:
            change = intervals(paired_changes(results, "guard")[[candidate]])[0]
            change_held.append(change.low <= -truth.level * truth.loss()[candidate] <= change.high)
    return {
        "objective": name,
        "guard": "none" if truth is None else f"{truth.kind}, {truth.shape}, {truth.prompts}, {truth.seeds} seeds",
        "prompts": prompts,
        "repetitions": repetitions,
        "answered": len(gains),
        "gain_bias": float(np.mean(errors) / np.mean(deviations)),
        "gain_coverage": _mean(gain_held),
        "change_coverage": _mean(change_held),
        "lam_coverage": float(np.mean(lam_held)),
    }


def _results(curve: Floats, truth: Truth | None, prompts: int, rng: np.random.Generator) -> Results:
    seeds = 1 if truth is None else truth.seeds
    scores = {"objective": objective_scores(curve, prompts, seeds, rng)}
    if truth is not None:
        scores["guard"] = truth.draw(prompts, rng)
    return Results(prompts=list(map(str, range(prompts))), seeds=range(seeds), lams=LAMS, scores=scores)


def _mean(values: list[Any]) -> float | None:
    """Of few answers nothing is told."""
    return float(np.mean(values)) if len(values) >= REPETITIONS / 8 else None


def power(truth: Truth, prompts: int, seed: int, repetitions: int = 200) -> dict[str, Any]:
    """Pilots that name a number of prompts, each followed by a fresh sample of that many: how often that settles it."""
    rng, curve = np.random.default_rng(seed), OBJECTIVES["rising"]
    question = make_criteria("objective", [Guard("guard", margin=truth.margin, relative=True)], risk=RISK)
    named, settled = [], []
    for _ in range(repetitions):
        decision = decide(_results(curve, truth, prompts, rng), question)
        found = _named(decision)
        if found is not None and found[1] <= 2000:
            lam, number = found
            fresh = decide(_results(curve, truth, number, rng), question)
            named.append(number)
            settled.append(bool(fresh.choice.shown[lam]))
    return {
        "guard": f"{truth.kind}, {truth.shape}, {truth.prompts}, {truth.seeds} seeds",
        "pilot": prompts,
        "named": len(named) / repetitions,
        "median_number": float(np.median(named)) if named else None,
        "achieved": float(np.mean(settled)) if len(settled) >= 20 else None,
    }


def _named(decision: Any) -> tuple[int, int] | None:
    for index in range(decision.choices[BEST_ESTIMATE].candidate, decision.choice.recommended, -1):
        tests = [(own.slack[[lam]], RISK) for own in decision.constraints for lam in range(1, index + 1)]
        number = prompts_to_show([*tests, (decision.gains.sample[[index]], RISK / 2)])
        if number is not None:
            return index, number
    return None
