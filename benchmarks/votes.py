"""Do intervals of the lam that people prefer hold it, and how many votes does a choice take?

    python benchmarks/votes.py --json benchmarks/results/votes.json

Raters of known utilities vote on the pairs that `next_pair` shows. Coverage: the share of runs in which the 95 %
interval holds the lam of the highest utility for all prompts and raters, not only for those who voted. Votes to decide:
how many votes it takes until the best of three lams, which wins 75 % of pairs, is decided.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a process

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import brentq

from deradiff.analysis.davidson import win_share
from deradiff.analysis.vote_design import next_pair
from deradiff.analysis.votes import VoteFit, fit_votes
from deradiff.results import Results
from deradiff.votes import Vote

LAMS = tuple(np.linspace(0, 2, 9).tolist())
THREE = (0.0, 0.5, 1.0)
COUNTS = (15, 30, 60, 120)  # votes at which a run is fitted
WIN_RATE = 0.75
MOST = 120  # votes until a choice is given up
CURVES = {
    "peaked": lambda lam: -3 * (lam - 0.75) ** 2,
    "broad": lambda lam: -0.7 * (lam - 1.25) ** 2,
    "flat": lambda lam: 0.05 * np.cos(np.pi * (lam - 0.5)),
    "saturating": lambda lam: 2 * (1 - np.exp(-2 * lam)) - 0.3 * lam,
    "cliff": lambda lam: 1.2 * lam - 4 * np.maximum(lam - 1, 0),
}


@dataclass(frozen=True)
class People:
    """Who votes, on what.

    Attributes:
        curve: of utility along lam, of `CURVES`.
        ties: share of ties between images of equal utility.
        raters: how many.
        prompts: how many the run has; two seeds each.
        lapses: share of votes given at random.
        prompt: standard deviation of the utility between prompts, smooth along lam; likewise of each image.
        rater: likewise between raters.
    """

    curve: str
    ties: float = 0.25
    raters: int = 2
    prompts: int = 30
    lapses: float = 0.05
    prompt: float = 0.5
    rater: float = 0.3

    def truth(self, lams: Sequence[float] = LAMS) -> np.ndarray:
        """The utility at each lam, over all prompts and raters."""
        return CURVES[self.curve](np.array(lams))


class Electorate:
    """The utilities of a sample of people, and their votes."""

    def __init__(self, people: People, lams: Sequence[float], truth: np.ndarray, rng: np.random.Generator) -> None:
        self.people, self.lams, self.rng = people, list(lams), rng
        prompts = [f"prompt {number}" for number in range(people.prompts)]
        self.raters = [f"rater {number}" for number in range(people.raters)]
        seeds, count = (0, 1), len(lams)
        smooth = _smooth(lams, people.prompts, rng)
        images = rng.normal(size=(len(prompts), len(seeds), count)) / np.sqrt(2)
        self.utility = truth + people.prompt * (smooth[:, None] + images)
        self.taste = people.rater * _smooth(lams, people.raters, rng)
        self.tie = 2 * people.ties / (1 - people.ties)
        files = np.full((len(prompts), len(seeds), count), "image", dtype=object)
        self.results = Results(prompts=prompts, seeds=seeds, lams=lams, scores={}, images=files)

    def vote(self, number: int, votes: Sequence[Vote], fit: VoteFit) -> Vote:
        """The vote on the pair that is shown next; raters take turns."""
        who = number % self.people.raters
        pair = next_pair(self.results, votes, self.raters[who], fit=fit)
        assert pair is not None
        left, right = self.lams.index(pair.left), self.lams.index(pair.right)
        utility = self.utility[self.results.prompts.index(pair.prompt), pair.seed] + self.taste[who]
        half = (utility[left] - utility[right]) / 2
        weights = np.array([np.exp(half), self.tie, np.exp(-half)])
        if self.rng.random() < self.people.lapses:
            weights = np.ones(3)
        outcome = ("left", "tie", "right")[self.rng.choice(3, p=weights / weights.sum())]
        return Vote(**pair._asdict(), outcome=outcome, rater=self.raters[who])


def _smooth(lams: Sequence[float], count: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random curves (count, L) of variance 1."""
    x = np.array(lams)
    covariance = np.exp(-0.5 * np.square((x[:, None] - x) / (0.5 * np.ptp(x)))) + 1e-8 * np.eye(len(x))
    return rng.normal(size=(count, len(x))) @ np.linalg.cholesky(covariance).T


def votes_of(electorate: Electorate, counts: Sequence[int]) -> Iterator[tuple[int, VoteFit]]:
    """The fit at each of some numbers of votes; between these the pairs shown come from the last fit."""
    votes, fit = list[Vote](), fit_votes([], electorate.lams)
    for number in range(1, max(counts) + 1):
        votes.append(electorate.vote(number, votes, fit))
        if number in counts:
            fit = fit_votes(votes, electorate.lams)
            yield number, fit


def random_people(rng: np.random.Generator, curve: str) -> People:
    """Ties, raters, lapses and spreads that differ from run to run."""
    return People(
        curve,
        ties=float(rng.uniform(0.1, 0.4)),
        raters=int(rng.integers(1, 5)),
        prompts=int(rng.integers(10, 41)),
        lapses=float(rng.uniform(0, 0.15)),
        prompt=float(rng.uniform(0.2, 1.0)),
        rater=float(rng.uniform(0, 0.5)),
    )


def coverage_run(task: tuple[str, int]) -> list[dict[str, Any]]:
    """What is said after 30, 60 and 120 votes of random people with a curve of utility."""
    curve, seed = task
    rng = np.random.default_rng([seed, 17])
    people = random_people(rng, curve)
    if people.raters == 1:  # whose taste is what is asked
        people = replace(people, rater=0.0)
    truth = people.truth()
    right, rows = LAMS[int(np.argmax(truth))], []
    for number, fit in votes_of(Electorate(people, LAMS, truth, rng), COUNTS):
        low, high = fit.interval
        wins = fit.win_rates(0.0)[fit.best_index]
        rows.append(
            {
                "curve": curve,
                "votes": number,
                "covered": low <= right <= high,
                "width": high - low,
                "loss": float(truth.max() - truth[fit.best_index]),
                "decided": fit.is_decided,
                "claims_a_gain": wins.low > 0.5,
                "is_a_gain": bool(truth[fit.best_index] > truth[0]),
            }
        )
    return rows


def deciding_run(seed: int) -> dict[str, Any]:
    """How many votes it takes until the best of three lams is decided, which wins 75 % of pairs against each other."""
    rng = np.random.default_rng([seed, 23])
    people = People("three", rater=0.0, prompts=20)
    tie = 2 * people.ties / (1 - people.ties)
    step = brentq(lambda d: float(win_share(np.array(d), tie)) - WIN_RATE, 0, 10)
    truth, counts = np.array([0.0, step, 0.0]), range(10, MOST + 1, 5)
    for number, fit in votes_of(Electorate(people, THREE, truth, rng), counts):
        if fit.is_decided:
            return {"votes": number, "right": fit.best == THREE[1]}
    return {"votes": MOST, "right": False}


def measured(quick: bool) -> dict[str, Any]:
    """`vote_coverage`, `votes_to_decide` and what they come from."""
    runs, deciding = (2, 4) if quick else (40, 40)
    tasks = [(curve, seed) for seed, curve in enumerate(list(CURVES) * runs)]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        runs_done = track(pool.imap(coverage_run, tasks), "intervals", total=len(tasks))
        rows = [row for part in runs_done for row in part]
        decided = list(track(pool.imap(deciding_run, range(deciding)), "decisions", total=deciding))
    by_curve = [_summary(rows, curve, number) for curve, number in product(CURVES, COUNTS)]
    at_60 = [row for row in rows if row["votes"] == 60]
    claims = [row for row in rows if row["claims_a_gain"]]
    return {
        "vote_coverage": float(np.mean([row["covered"] for row in at_60])),
        "vote_coverage_120": float(np.mean([row["covered"] for row in rows if row["votes"] == 120])),
        "vote_false_gains": sum(not row["is_a_gain"] for row in claims) / len(rows),
        "votes_to_decide": float(np.median([row["votes"] for row in decided])),
        "votes_to_decide_90": float(np.quantile([row["votes"] for row in decided], 0.9)),
        "votes_decided_right": float(np.mean([row["right"] for row in decided])),
        "vote_runs": len(tasks),
        "vote_curves": by_curve,
    }


def _summary(rows: Sequence[dict[str, Any]], curve: str, number: int) -> dict[str, Any]:
    those = [row for row in rows if row["curve"] == curve and row["votes"] == number]
    figures = {key: float(np.mean([row[key] for row in those])) for key in ("covered", "width", "loss", "decided")}
    return {"curve": curve, "votes": number, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the runs")
    options = parser.parse_args()
    found = measured(options.quick)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = Table("curve", "votes", "covered", "width", "loss", "decided")
    for row in found["vote_curves"]:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console()
    console.print(table)
    console.print({key: value for key, value in found.items() if not isinstance(value, list)})


if __name__ == "__main__":
    main()
