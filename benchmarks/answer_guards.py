"""How often the recommended lam violates a guard, and how near it comes to the right one. Part of benchmarks/answer.py.

Cells of synthetic truths x prompts x margins, and the pool with its prompts drawn anew. A violation is a lam at which
the true loss exceeds the margin. Cells that come close to the nominal risk in a first pass are measured again with more
repetitions, and the second figure is the one that counts: the largest of many noisy figures is too large.
"""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from pool import table
from truths import LAMS, LAST_HELD, Truth, from_pool

from deradiff import Guard, Results
from deradiff.analysis.criteria import Prefer, make_criteria
from deradiff.analysis.decide import chosen_index
from deradiff.analysis.guards import make_constraints, reached
from deradiff.analysis.limits import PromptMeans, p_values, stack

RISK = 0.05
PROMPTS, MARGINS = (2, 3, 5, 10, 20, 32, 100), (0.05, 0.1, 0.2)
REPETITIONS, AGAIN, CLOSE = 400, 4000, 0.04
ZERO = 0


def truths() -> list[Truth]:
    kinds = ("gaussian", "t3", "exponential", "binary", "five levels")
    cells = product(kinds, ("linear", "quadratic"), ("alike", "exponential", "few"), MARGINS, (1, 4))
    return [Truth(*cell) for cell in cells]


def shown_lams(
    truth: Truth, prompts: int, repetitions: int, rng: np.random.Generator, floor: float | None = None
) -> Any:
    """Index of the largest lam shown to hold in each repetition."""
    question = make_criteria("objective", [Guard("guard", margin=truth.margin, relative=True, floor=floor)], risk=RISK)
    drawn = [truth.draw(prompts, rng) for _ in range(repetitions)]
    # where all images at lam = 0 score 0, a share of their mean is nothing: recommend refuses, and nothing is shown
    slacks = [_slack(scores, question) for scores in drawn if scores[:, :, ZERO].any()]
    p = np.concatenate([p_values(stack(slacks[start : start + 50]), RISK) for start in range(0, len(slacks), 50)])
    holds = p.reshape(len(slacks), -1) <= RISK
    shown = [int(reached(own, ZERO).sum()) - 1 for own in holds]
    return np.array([*shown, *[ZERO] * (repetitions - len(slacks))])


def _slack(scores: Any, question: Any) -> PromptMeans:
    # beyond the first lam that fails nothing matters: a violation is one already
    lams = LAMS[: LAST_HELD + 2]
    results = Results(
        prompts=[str(index) for index in range(len(scores))],
        seeds=range(scores.shape[1]),
        lams=lams,
        scores={"guard": scores[:, :, : len(lams)]},
    )
    return make_constraints(results, question)[0].slack


def synthetic(prompts: int, truth: Truth, seed: int, floor: float | None = None) -> dict[str, Any]:
    """One cell: the rate of violations and the mean lam as a share of the right one."""
    rng = np.random.default_rng(seed)
    lams = shown_lams(truth, prompts, REPETITIONS, rng, floor)
    share, violations, repetitions = float(lams.mean() / LAST_HELD), float(np.mean(lams > LAST_HELD)), REPETITIONS
    if violations > CLOSE and AGAIN * prompts <= 400_000:
        lams, repetitions = shown_lams(truth, prompts, AGAIN, rng, floor), AGAIN
        violations = float(np.mean(lams > LAST_HELD))
    return {
        "kind": truth.kind,
        "shape": truth.shape,
        "prompts react": truth.prompts,
        "margin": truth.margin,
        "seeds": truth.seeds,
        "prompts": prompts,
        "floor": floor,
        "repetitions": repetitions,
        "violations": violations,
        "share_of_right_lam": share,
    }


def is_fragile(cell: dict[str, Any]) -> bool:
    """Few prompts carry everything and the sample can miss them all: nothing but a declared floor helps."""
    few = cell["prompts react"] == "few" and cell["kind"] not in ("binary", "five levels")
    return few and cell["prompts"] <= 10 and cell["floor"] is None


def pool(prompts: int, margin: float, seed: int) -> dict[str, Any]:
    """The pool: objective warmth, guard faithfulness, four seeds, nine lams, prompts drawn anew."""
    whole, rng = table(), np.random.default_rng(seed)
    tables = (whole["warmth"], whole["faithfulness"])
    means = tables[1].mean(axis=(0, 1))[::4]
    right = int(reached(means >= (1 - margin) * means[0] - 1e-12, ZERO).sum() - 1)
    question = make_criteria("warmth", [Guard("faithfulness", margin=margin, relative=True)], risk=RISK, prefer="best")
    found: dict[Prefer, list[int]] = {"best": [], "smallest": []}
    for _ in range(REPETITIONS):
        drawn = from_pool(tables, prompts, 4, rng)
        results = Results(
            prompts=[str(index) for index in range(prompts)],
            seeds=range(4),
            lams=LAMS,
            scores=dict(zip(("warmth", "faithfulness"), drawn, strict=True)),
        )
        for prefer, lams in found.items():
            lams.append(chosen_index(results, replace(question, prefer=prefer)))
    best, smallest = (np.array(found[prefer]) for prefer in ("best", "smallest"))
    return {
        "prompts": prompts,
        "margin": margin,
        "right_lam": LAMS[right],
        "violations": float(np.mean(best > right)),
        "share_of_right_lam": float(best.mean() / right),
        "share_of_right_lam_smallest": float(smallest.mean() / right),
    }
