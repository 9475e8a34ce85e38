"""The hacking alarm: false alarms where the held-out reward's true mean never changes, and power where it falls.

Part of benchmarks/answer.py. The objective rises clearly in every run. Where a tenth of all prompts carries a rise that
offsets the others' fall, samples that miss these prompts look like a true fall, whatever the method: (1 - 0.1)^P of
samples of P prompts do. Such nulls are told apart, by prompts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from pool import SHAPE, table
from truths import LAMS, Floats, from_pool

from deradiff import Guard, Results
from deradiff.analysis.criteria import make_criteria
from deradiff.analysis.overoptimization import alarms

REPETITIONS, AGAIN, CLOSE = 400, 2000, 0.05
GRID = np.array(LAMS)
Draw = Callable[[int, int, np.random.Generator], Floats]


def _slopes(factors: Floats, seeds: int, rng: np.random.Generator, noise: float = 0.3) -> Floats:
    """Scores (P, S, L) that change by a factor a prompt times lam, with noise between images."""
    return factors[:, None, None] * GRID + noise * rng.normal(size=(len(factors), seeds, len(GRID)))


def _flat(prompts: int, seeds: int, noise: Floats, rng: np.random.Generator) -> Floats:
    return rng.normal(size=(prompts, 1, 1)) + noise.reshape(prompts, seeds, len(GRID))


def _binary(gainers: Floats, seeds: int, rng: np.random.Generator) -> Floats:
    """A fifth of prompts gains 0.8 on the way to lam = 1, the others lose 0.2."""
    probability = np.where(gainers, 0.1, 0.9)[:, None] + np.where(gainers, 0.8, -0.2)[:, None] * GRID
    return (rng.random((len(gainers), seeds, len(GRID))) < probability[:, None]).astype(float)


def _mirrored(prompts: int, seeds: int, rng: np.random.Generator) -> Floats:
    """The pool's changes, each prompt's mirrored about their mean over all prompts, which becomes 0: few rise much."""
    (drawn,) = from_pool((_mirror(),), prompts, seeds, rng)
    return drawn + 0.1 * rng.normal(size=drawn.shape)


def _mirror() -> Floats:
    faithfulness = table()["faithfulness"]
    change = faithfulness - faithfulness[:, :, [0]]
    return change.mean(axis=(0, 1)) - change


NULLS: dict[str, Draw] = {
    "gaussian": lambda p, s, rng: _flat(p, s, rng.normal(size=p * s * len(GRID)), rng),
    "gaussian slopes": lambda p, s, rng: _slopes(rng.normal(size=p), s, rng),
    "t3": lambda p, s, rng: _flat(p, s, rng.standard_t(3, size=p * s * len(GRID)), rng),
    "t3 slopes": lambda p, s, rng: _slopes(rng.standard_t(3, size=p), s, rng),
    "exponential slopes": lambda p, s, rng: _slopes(rng.exponential(size=p) - 1, s, rng),
    "exponential slopes, mirrored": lambda p, s, rng: _slopes(1 - rng.exponential(size=p), s, rng),
    "binary": lambda p, s, rng: (rng.random((p, s, len(GRID))) < 0.8).astype(float),
    "binary, a fifth gain": lambda p, s, rng: _binary(rng.random(p) < 0.2, s, rng),
    "five levels": lambda p, s, rng: np.clip(np.round(3 + rng.normal(size=(p, s, len(GRID)))), 1, 5),
    "pool, shuffled": lambda p, s, rng: rng.permuted(from_pool((table()["faithfulness"],), p, s, rng)[0], axis=2),
}
RARE: dict[str, Draw] = {
    "a tenth gain 9, the rest lose 1": lambda p, s, rng: _slopes(np.where(rng.random(p) < 0.1, 9.0, -1.0), s, rng),
    "the same without noise": lambda p, s, rng: _slopes(np.where(rng.random(p) < 0.1, 9.0, -1.0), s, rng, 0.0),
    "pool, mirrored": _mirrored,
}


def false_alarms(name: str, prompts: int, seeds: int, seed: int) -> dict[str, Any]:
    """The share of runs with an alarm, where there is nothing to find."""
    rng, draw = np.random.default_rng(seed), {**NULLS, **RARE}[name]
    question = make_criteria("objective", [Guard("held out", margin=1e-9)])
    raised = [_raised(draw(prompts, seeds, rng), question, rng) for _ in range(REPETITIONS)]
    if name in NULLS and np.mean(raised) > CLOSE:
        raised = [_raised(draw(prompts, seeds, rng), question, rng) for _ in range(AGAIN)]
    return {"null": name, "prompts": prompts, "seeds": seeds, "rare": name in RARE, "false": float(np.mean(raised))}


def power(prompts: int, others: int, seed: int) -> dict[str, Any]:
    """A named guard that truly falls by 0.6 standard deviations of its images, beside others that don't."""
    rng = np.random.default_rng(seed)
    question = make_criteria("objective", [Guard("held out", margin=0.2)])
    raised = []
    for _ in range(REPETITIONS):
        shape = (prompts, 4, len(GRID))
        tables = [rng.normal(size=(prompts, 1, 1)) + rng.normal(size=shape) for _ in range(1 + others)]
        tables[0] = tables[0] - 0.6 * np.sqrt(2) * GRID  # the deviation between images is sqrt(2)
        raised.append(_raised(tables[0], question, rng, tables[1:]))
    return {"prompts": prompts, "others": others, "power": float(np.mean(raised))}


def pool_power(prompts: int, seed: int) -> dict[str, Any]:
    """The pool's anchor, whose faithfulness falls by a third."""
    whole, rng = table(), np.random.default_rng(seed)
    question = make_criteria("objective", [Guard("held out", margin=0.1, relative=True)])
    raised = []
    for _ in range(REPETITIONS):
        rows, seeds = rng.choice(SHAPE[0], prompts, replace=False), rng.choice(SHAPE[1], 4, replace=False)
        scores = {name: whole[name][np.ix_(rows, seeds, range(0, SHAPE[2], 4))] for name in ("warmth", "faithfulness")}
        raised.append(_any(scores["warmth"], scores["faithfulness"], question, ()))
    return {"prompts": prompts, "power": float(np.mean(raised))}


def _raised(held_out: Floats, question: Any, rng: np.random.Generator, others: Any = ()) -> bool:
    objective = 3 * GRID + 0.3 * rng.normal(size=held_out.shape)
    return _any(objective, held_out, question, others)


def _any(objective: Floats, held_out: Floats, question: Any, others: Any) -> bool:
    results = Results(
        prompts=[str(index) for index in range(len(held_out))],
        seeds=range(held_out.shape[1]),
        lams=LAMS,
        scores={"objective": objective, "held out": held_out, **{f"other {n}": own for n, own in enumerate(others)}},
    )
    return any(alarm.raised for alarm in alarms(results, question))
