"""Do intervals of the lam that people prefer hold it, and how many votes does a choice take?

    python benchmarks/votes.py --json benchmarks/results/votes.json

Raters of known utilities vote on the pairs that `next_pair` shows. Coverage: the share of runs in which the 95 % interval
holds the lam of the highest utility for all prompts and raters, not only for those who voted. Votes to decide: how many
votes it takes until the best of three lams, which wins 75 % of pairs, is decided.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a process

import numpy as np
from rich.console import Console
from rich.table import Table

from deradiff.analysis.vote_design import next_pair
from deradiff.analysis.votes import VoteFit, fit_votes
from deradiff.results import Results
from deradiff.votes import Vote

LAMS = tuple(np.linspace(0, 2, 9).tolist())
REFIT = 10  # votes between fits
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
        prompts, raters = ([f"{kind} {n}" for n in range(count)] for kind, count in (("prompt", people.prompts), ("rater", people.raters)))
        self.raters, seeds, count = raters, (0, 1), len(lams)
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
        return Vote(prompt=pair.prompt, seed=pair.seed, left=pair.left, right=pair.right, outcome=outcome, rater=self.raters[who])


def _smooth(lams: Sequence[float], count: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random curves (count, L) of variance 1."""
    x = np.array(lams)
    covariance = np.exp(-0.5 * np.square((x[:, None] - x) / (0.5 * np.ptp(x)))) + 1e-8 * np.eye(len(x))
    return rng.normal(size=(count, len(x))) @ np.linalg.cholesky(covariance).T


def one_run(people: People, counts: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """What is said after some numbers of votes."""
    rng = np.random.default_rng([seed, 17])
    truth = people.truth()
    electorate, votes, rows = Electorate(people, LAMS, truth, rng), list[Vote](), []
    fit = fit_votes(votes, LAMS)
    right = LAMS[int(np.argmax(truth))]
    for number in range(max(counts)):
        votes.append(electorate.vote(number, votes, fit))
        if len(votes) in counts or len(votes) % REFIT == 0:
            fit = fit_votes(votes, LAMS)
        if len(votes) in counts:
            low, high = fit.interval
            chosen = truth[LAMS.index(fit.best)]
            rows.append(
                {"votes": len(votes), "covered": low <= right <= high, "width": high - low, "best": fit.best,
                 "decided": fit.is_decided, "needed": fit.votes_needed, "regret": float(truth.max() - chosen)}
            )
    return rows
