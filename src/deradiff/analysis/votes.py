"""From people's votes on pairs of images to the lam that they prefer.

Davidson's model (1970), which is Bradley and Terry's with ties: of two images whose utilities differ by d, the better
one wins with a probability proportional to exp(d/2), the other to exp(-d/2), and they tie with one proportional to
`tie`. The utility at a lam is a smooth curve, plus a departure of each prompt, of each rater and of each image; all are
Gaussian processes along lam, so that votes of one prompt or rater are not independent. Given the scales of these, which
are those of the largest marginal likelihood times a weak prior, the posterior is Laplace's approximation (Rasmussen &
Williams 2006, section 3.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

from deradiff.analysis.limits import Floats
from deradiff.analysis.statistics import LEVEL, Interval
from deradiff.errors import ResultsError
from deradiff.votes import Vote

Ints = NDArray[np.intp]

PRACTICAL = 0.55  # win rate up to which a lam is as good as another for all practical purposes
SAMPLES = 4000  # of the posterior
_SCALES = ("utility", "length", "prompt", "rater", "tie")
# medians and standard deviations of the logarithms; lengths in shares of the range of lams
_MEDIANS, _SPREADS = np.log([1.0, 0.5, 0.5, 0.3, 1.0]), np.array([1.0, 0.5, 0.7, 0.7, 1.0])
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_JITTER = 1e-6


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
        """The fewest lams that hold the one of the highest utility with a probability of 95 %, ascending."""
        order = np.argsort(-self.probability_best, kind="stable")
        count = int(np.searchsorted(np.cumsum(self.probability_best[order]), LEVEL - 1e-12)) + 1
        return tuple(self.lams[index] for index in sorted({*order[:count].tolist(), self.best_index}))

    @property
    def interval(self) -> tuple[float, float]:
        """The smallest and the largest of `credible_lams`."""
        return self.credible_lams[0], self.credible_lams[-1]

    def win_rates(self, against: float) -> tuple[Interval, ...]:
        """The share of pairs, ties half, that each lam wins against another lam, with 95 % credible limits.

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
        """The largest win rate against `best` that any lam has, at 95 % probability; 0.5 or more."""
        index = self.best_index
        shares = self._shares(self.samples - self.samples[:, [index]], index)
        return float(np.quantile(shares.max(axis=1), LEVEL))

    @property
    def is_decided(self) -> bool:
        """Whether no lam would win more than 55 % of pairs against `best`, at 95 % probability."""
        return self.votes > 0 and self.regret <= PRACTICAL

    @cached_property
    def votes_needed(self) -> int | None:
        """About how many more votes would decide it; 0 where it is decided, None where nothing can be inferred."""
        if self.is_decided:
            return 0
        if self.votes == 0:
            return None
        best = self.best_index
        variance = np.diag(self.covariance) + self.covariance[best, best] - 2 * self.covariance[:, best]
        room = self.mean[best] - self.mean + 4 * (PRACTICAL - 0.5) * (1 + self.tie / 2)
        factor = float(np.max(1.96**2 * variance / np.square(room)))
        return max(1, ceil(self.votes * (factor - 1)))

    def _shares(self, differences: Floats, against: int) -> Floats:
        """Win rates over prompts, raters and images, of differences (..., L) to the lam of an index."""
        steps = self.spread[against][:, None] * _NODES
        return win_share(differences[..., None] + steps, self.tie) @ (_WEIGHTS / _WEIGHTS.sum())


def win_share(difference: Floats, tie: float) -> Floats:
    """The probability of a win plus half that of a tie, by Davidson's model."""
    return 0.5 + 0.5 * np.sinh(difference / 2) / (np.cosh(difference / 2) + tie / 2)


def fit_votes(votes: Sequence[Vote], lams: Sequence[float], seed: int = 0) -> VoteFit:
    """The utility of each lam, from votes in any order; without votes, what is known beforehand.

    Args:
        votes: on pairs of these lams.
        lams: ascending.
        seed: of the samples.

    Raises:
        ResultsError: no lam, or a vote on a lam that isn't among them.
    """
    data = _Data.of(votes, lams)
    scales = _fit_scales(data)
    f = _kernels(data, scales)
    state = _laplace(f.votes, data.sign, scales["tie"])
    mean = f.cross @ state.gradient
    covariance = f.lams - f.cross @ state.solve(f.cross.T)
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return VoteFit(
        lams=tuple(lams),
        mean=mean - mean[0],
        covariance=covariance,
        tie=scales["tie"],
        spread=f.spread,
        samples=mean + rng.normal(size=(SAMPLES, len(lams))) @ root.T,
        votes=len(votes),
        ties=sum(vote.outcome == "tie" for vote in votes),
        raters=tuple(sorted({vote.rater for vote in votes})),
        prompts=len({vote.prompt for vote in votes}),
    )


@dataclass(frozen=True)
class _Data:
    """N votes as arrays: design (N, L), 1 at the larger lam and -1 at the smaller; sign 1, 0, -1; ids."""

    lams: Floats
    design: Floats
    sign: Floats
    prompt: Ints
    image: Ints
    rater: Ints

    @classmethod
    def of(cls, votes: Sequence[Vote], lams: Sequence[float]) -> "_Data":
        index = {lam: number for number, lam in enumerate(lams)}
        if not index:
            raise ResultsError("no lams: a vote compares images at two of them")
        design = np.zeros((len(votes), len(index)))
        for row, vote in enumerate(votes):
            for lam, value in zip(vote.lams, (-1, 1), strict=True):
                if lam not in index:
                    known = ", ".join(f"{lam:g}" for lam in lams)
                    raise ResultsError(f"a vote is on lam = {lam:g}, which is not among {known}")
                design[row, index[lam]] = value
        return cls(
            lams=np.array(lams, float),
            design=design,
            sign=np.array([vote.sign for vote in votes], float),
            prompt=_ids([vote.prompt for vote in votes]),
            image=_ids([(vote.prompt, vote.seed) for vote in votes]),
            rater=_ids([vote.rater for vote in votes]),
        )


def _ids(values: Sequence[object]) -> Ints:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values], np.intp)


@dataclass(frozen=True)
class _Kernels:
    """Prior covariances of the differences voted on (N, N), of utilities (L, L) and between both (L, N)."""

    votes: Floats
    lams: Floats
    cross: Floats
    spread: Floats


def _kernels(data: _Data, scales: dict[str, float]) -> _Kernels:
    shape = _matern(data.lams, scales["length"])
    prior = scales["utility"] ** 2 * shape
    prompt, rater = scales["prompt"] ** 2, scales["rater"] ** 2 * (data.rater.max(initial=0) > 0)
    same_prompt, same_image, same_rater = (np.equal.outer(ids, ids) for ids in (data.prompt, data.image, data.rater))
    smooth = data.design @ shape @ data.design.T
    rough = data.design @ data.design.T
    votes = smooth * (scales["utility"] ** 2 + prompt * same_prompt + rater * same_rater) + prompt * same_image * rough
    variance = 2 * ((prompt + rater) * (1 - shape) + prompt * (1 - np.eye(len(shape))))
    return _Kernels(votes, prior, prior @ data.design.T, np.sqrt(variance))


def _matern(lams: Floats, length: float) -> Floats:
    """Matérn 5/2 correlations, ``length`` as a share of the range of lams."""
    reach = float(np.ptp(lams)) or 1.0
    r = np.sqrt(5) * np.abs(lams[:, None] - lams) / (reach * length)
    return (1 + r + np.square(r) / 3) * np.exp(-r)


@dataclass(frozen=True)
class _Laplace:
    """The mode of the differences: the log likelihood's gradient there (N,), and its curvature with the prior's."""

    gradient: Floats
    root: Floats
    factor: Floats
    evidence: float

    def solve(self, right: Floats) -> Floats:
        """(K + W⁻¹)⁻¹ right, of the prior covariance K and the negative curvature W."""
        return self.root[:, None] * cho_solve((self.factor, True), self.root[:, None] * right)


def _laplace(prior: Floats, sign: Floats, tie: float) -> _Laplace:
    """Rasmussen & Williams, algorithm 3.1."""
    count, d = len(sign), np.zeros(len(sign))
    for _ in range(100):
        log_p, gradient, curvature = _log_likelihood(d, sign, tie)
        root = np.sqrt(curvature)
        factor = cholesky(np.eye(count) + root[:, None] * prior * root, lower=True)
        b = curvature * d + gradient
        a = b - root * cho_solve((factor, True), root * (prior @ b))
        new = prior @ a
        step, d = float(np.abs(new - d).max(initial=0)), new
        if step < 1e-6:
            break
    evidence = log_p - 0.5 * float(a @ d) - float(np.log(np.diag(factor)).sum())
    return _Laplace(a, root, factor, evidence)


def _log_likelihood(d: Floats, sign: Floats, tie: float) -> tuple[float, Floats, Floats]:
    """Davidson's: the sum, its gradient and its negative second derivatives, by difference."""
    half = np.abs(d) / 2
    small = np.exp(-2 * half)  # everything below is divided by exp(|d| / 2)
    total = 1 + small + tie * np.exp(-half)
    log_p = sign * d / 2 - half - np.log(total) + np.where(sign == 0, np.log(tie), 0)
    slope = np.sign(d) * (1 - small) / (2 * total)
    curvature = (4 * small + tie * np.exp(-half) * (1 + small)) / (4 * np.square(total))
    return float(log_p.sum()), sign / 2 - slope, curvature


def _fit_scales(data: _Data) -> dict[str, float]:
    """Those of the largest marginal likelihood times their prior."""

    def loss(z: Floats) -> float:
        scales = _scales(z)
        evidence = _laplace(_kernels(data, scales).votes, data.sign, scales["tie"]).evidence
        return 0.5 * float(z @ z) - evidence

    start = np.zeros(len(_SCALES))
    if not len(data.sign):
        return _scales(start)
    return _scales(minimize(loss, start, method="L-BFGS-B", bounds=[(-3, 3)] * len(start), tol=1e-4).x)


def _scales(z: Floats) -> dict[str, float]:
    """The scales at standard normal coordinates of their prior."""
    return dict(zip(_SCALES, np.exp(_MEDIANS + _SPREADS * z).tolist(), strict=True))
