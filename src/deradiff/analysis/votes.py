"""From people's votes on pairs of images to the lam that they prefer, by `deradiff.analysis.davidson`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np

from deradiff.analysis.davidson import Ints, Posterior, VoteTable, posteriors, win_share
from deradiff.analysis.limits import Floats
from deradiff.analysis.statistics import LEVEL, Interval
from deradiff.errors import ResultsError
from deradiff.votes import Vote

PRACTICAL = 0.55  # win rate up to which a lam is as good as another for all practical purposes
SAMPLES = 4000  # of the posterior
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)


@dataclass(frozen=True, kw_only=True)
class VoteFit:
    """What votes say of the utility at each of L lams; L >= 1, ascending.

    Attributes:
        lams: L mixing weights.
        mean: (L,), posterior mean of the utility, in logits: a difference of 1 wins e times as often as it loses.
            Differences between lams alone have a meaning.
        covariance: (L, L), of the posterior.
        tie_rate: the share of ties between images of the same utility.
        spread: (L, L), standard deviation, between prompts, raters and images, of the difference of two lams' utility.
        samples: (N, L) of the posterior, the same for the same votes.
        votes: how many there are.
        ties: how many of them are ties.
        raters: names, sorted.
        prompts: how many prompts were voted on.
    """

    lams: tuple[float, ...]
    mean: Floats
    covariance: Floats
    tie: float
    spread: Floats
    samples: Floats
    votes: int
    ties: int
    raters: tuple[str, ...]
    prompts: int

    @property
    def tie_rate(self) -> float:
        """The share of ties between images of the same utility, in [0, 1]."""
        return self.tie / (2 + self.tie)

    @property
    def best(self) -> float:
        """The lam of the highest mean utility: the recommended one."""
        return self.lams[self.best_index]

    @property
    def best_index(self) -> int:
        """Its index."""
        return int(np.argmax(self.mean))

    @cached_property
    def probability_best(self) -> Floats:
        """(L,), the probability that each lam is the one of the highest utility."""
        return np.bincount(self.samples.argmax(axis=1), minlength=len(self.lams)) / len(self.samples)

    @cached_property
    def credible_lams(self) -> tuple[float, ...]:
        """The fewest lams that hold the one of the highest utility with a probability of 95%, ascending."""
        credible = credible_indices(self.probability_best)
        return tuple(self.lams[index] for index in sorted({*credible.tolist(), self.best_index}))

    @property
    def interval(self) -> tuple[float, float]:
        """The smallest and the largest of `credible_lams`."""
        return self.credible_lams[0], self.credible_lams[-1]

    def win_rates(self, against: float) -> tuple[Interval, ...]:
        """The share of pairs, ties half, that each lam wins against another lam, with 95% credible limits.

        Raises:
            ResultsError: no lam of these.
        """
        if against not in self.lams:
            raise ResultsError(f"lam = {against:g} is not among {', '.join(f'{lam:g}' for lam in self.lams)}")
        index = self.lams.index(against)
        shares = self._shares(self.samples - self.samples[:, [index]], index)
        low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return tuple(
            Interval(mean=float(m), low=float(a), high=float(b))
            for m, a, b in zip(shares.mean(axis=0), low, high, strict=True)
        )

    @cached_property
    def regret(self) -> float:
        """The largest win rate against `best` that any lam has, at 95% probability; 0.5 or more."""
        index = self.best_index
        shares = self._shares(self.samples - self.samples[:, [index]], index)
        return float(np.quantile(shares.max(axis=1), LEVEL))

    @property
    def is_decided(self) -> bool:
        """Whether no lam would win more than 55% of pairs against `best`, at 95% probability."""
        return self.votes > 0 and self.regret <= PRACTICAL

    @cached_property
    def votes_needed(self) -> int | None:
        """About how many more votes would decide it; 0 where it is decided, None where nothing can be inferred."""
        if self.is_decided:
            return 0
        if self.votes == 0:
            return None
        best = self.best_index
        variance = np.square(self.difference_errors(best))
        room = self.mean[best] - self.mean + 4 * (PRACTICAL - 0.5) * (1 + self.tie / 2)
        factor = float(np.max(1.96**2 * variance / np.square(room)))
        return max(1, ceil(self.votes * (factor - 1)))

    def difference_errors(self, against: int) -> Floats:
        """(L,), the posterior standard deviation of each utility's difference to that of an index."""
        covariance = self.covariance
        variance = np.diag(covariance) + covariance[against, against] - 2 * covariance[:, against]
        return np.sqrt(np.maximum(variance, 0))

    def _shares(self, differences: Floats, against: int) -> Floats:
        """Win rates over prompts, raters and images, of differences (..., L) to the lam of an index."""
        steps = self.spread[against][:, None] * _NODES
        return win_share(differences[..., None] + steps, self.tie) @ (_WEIGHTS / _WEIGHTS.sum())


def credible_indices(probabilities: Floats) -> Ints:
    """The fewest indices whose probabilities add up to 95%, the most probable first."""
    order = np.argsort(-probabilities, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(probabilities[order]), LEVEL - 1e-12)) + 1]


def fit_votes(votes: Sequence[Vote], lams: Sequence[float], seed: int = 0) -> VoteFit:
    """The utility of each lam, from votes in any order; without votes, what is known beforehand.

    Args:
        votes: on pairs of these lams.
        lams: ascending.
        seed: of the samples.

    Raises:
        ResultsError: no lam, or a vote on a lam that isn't among them.
    """
    mixture = posteriors(VoteTable.from_votes(votes, lams))
    samples = _samples(mixture, np.random.default_rng(seed))
    mean = np.sum([part.weight * part.mean for part in mixture], axis=0)
    return VoteFit(
        lams=tuple(lams),
        mean=mean - mean[0],
        covariance=np.sum([part.weight * (part.covariance + _square(part.mean - mean)) for part in mixture], axis=0),
        tie=mixture[0].tie,
        spread=np.sqrt(np.sum([part.weight * part.variance for part in mixture], axis=0)),
        samples=samples,
        votes=len(votes),
        ties=sum(vote.outcome == "tie" for vote in votes),
        raters=tuple(sorted({vote.rater for vote in votes})),
        prompts=len({vote.prompt for vote in votes}),
    )


def _square(vector: Floats) -> Floats:
    return vector[:, None] * vector


def _samples(mixture: Sequence[Posterior], rng: np.random.Generator) -> Floats:
    """(SAMPLES, L), each part's share by its weight."""
    ends = np.round(SAMPLES * np.cumsum([part.weight for part in mixture]) / sum(part.weight for part in mixture))
    counts = np.diff(ends, prepend=0).astype(int)
    drawn = []
    for part, count in zip(mixture, counts, strict=True):
        values, vectors = np.linalg.eigh((part.covariance + part.covariance.T) / 2)
        root = vectors * np.sqrt(np.maximum(values, 0))
        drawn.append(part.mean + rng.normal(size=(count, len(part.mean))) @ root.T)
    return np.concatenate(drawn)
