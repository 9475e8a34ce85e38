"""Davidson's model (1970) of votes, which is Bradley and Terry's with ties, and its posterior along lam.

Of two images whose utilities differ by d, the better one wins with a probability proportional to exp(d/2), the other
one to exp(-d/2), and they tie with one proportional to ``tie``. The utility is a smooth curve along lam, plus a smooth
departure of each prompt and of each rater, plus one of each image: Gaussian processes, so that votes of one prompt or
rater are not independent. Given their scales the posterior is Laplace's approximation (Rasmussen & Williams 2006,
section 3.4). The scales are averaged over, by importance sampling around the largest posterior, since few votes leave
them open; but for ``tie``, which the share of ties tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats.qmc import Sobol

from deradiff.analysis.limits import Floats
from deradiff.errors import ResultsError
from deradiff.votes import Vote

Ints = NDArray[np.intp]

# The prior: medians of the scales, and standard deviations of their logarithms. Utilities are in logits, lengths in
# shares of the range of lams.
_PRIOR = {
    "utility": (1.0, 1.0),
    "length": (0.5, 0.5),
    "prompt": (0.5, 0.7),
    "rater": (0.3, 0.7),
    "tie": (1.0, 1.0),
}
_MEDIANS, _SPREADS = np.array(list(_PRIOR.values())).T
_TIE = list(_PRIOR).index("tie")
_FARTHEST = 3.0  # standard deviations of the prior that scales are looked for in
_DRAWS = 16  # of the scales
_STILL = 1e-6  # logits: the mode is found where a step is shorter
_LEAST_SHARE = 1e-6  # of a step that is tried
_WIDTH = 0.8  # of the draws around the best scales, in standard deviations of the prior


@dataclass(frozen=True)
class VoteTable:
    """N votes on L lams as arrays.

    Attributes:
        lams: (L,).
        design: (N, L), 1 at the larger lam of a vote and -1 at the smaller.
        sign: (N,), 1 where the larger lam won, -1 where the smaller did, 0 for a tie.
        prompt: (N,), the number of the prompt.
        image: (N,), the number of the pair of prompt and seed.
        rater: (N,), the number of the rater.
    """

    lams: Floats
    design: Floats
    sign: Floats
    prompt: Ints
    image: Ints
    rater: Ints

    @classmethod
    def from_votes(cls, votes: Sequence[Vote], lams: Sequence[float]) -> "VoteTable":
        """Some votes on pairs of these lams.

        Raises:
            ResultsError: no lam, or a vote on one that isn't among them.
        """
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
            prompt=_numbers([vote.prompt for vote in votes]),
            image=_numbers([(vote.prompt, vote.seed) for vote in votes]),
            rater=_numbers([vote.rater for vote in votes]),
        )


def _numbers(values: Sequence[object]) -> Ints:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values], np.intp)


@dataclass(frozen=True)
class Posterior:
    """Of the utilities at L lams, given the scales.

    Attributes:
        weight: of these scales among all.
        mean: (L,).
        covariance: (L, L).
        variance: (L, L), of the difference of two lams between prompts, raters and images.
        tie: Davidson's parameter.
    """

    weight: float
    mean: Floats
    covariance: Floats
    variance: Floats
    tie: float


def posteriors(table: VoteTable) -> list[Posterior]:
    """The posterior at each of some scales, whose weights add up to 1; without votes, the prior at its medians."""
    best = np.zeros(len(_MEDIANS))
    if not len(table.sign):
        return [_at(table, best).posterior(1.0)]
    state = _at(table, best)

    def loss(z: Floats) -> float:
        nonlocal state
        state = _at(table, z, state.mode.gradient)  # the mode moves little from one call to the next
        return -state.log_posterior

    bounds = [(-_FARTHEST, _FARTHEST)] * len(best)
    best = minimize(loss, best, method="L-BFGS-B", bounds=bounds, tol=1e-4, options={"eps": 1e-4}).x
    start = _at(table, best, state.mode.gradient).mode.gradient
    others = np.delete(np.arange(len(best)), _TIE)
    steps = ndtri(Sobol(len(others), scramble=True, rng=0).random(_DRAWS))
    draws = np.tile(best, (_DRAWS, 1))
    draws[:, others] += _WIDTH * steps
    states = [_at(table, z, start) for z in draws]
    logs = np.array([state.log_posterior for state in states]) + 0.5 * np.square(steps).sum(axis=1)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    return [state.posterior(float(weight)) for state, weight in zip(states, weights, strict=True)]


@dataclass(frozen=True)
class _State:
    """Prior and mode at standard normal coordinates z of the scales.

    Attributes:
        log_posterior: of the scales: the log of marginal likelihood times prior.
    """

    prior: "_Kernels"
    mode: "_Mode"
    tie: float
    log_posterior: float

    def posterior(self, weight: float) -> Posterior:
        prior, cross = self.prior, self.prior.cross
        covariance = prior.lams - cross @ self.mode.solve(cross.T)
        return Posterior(weight, cross @ self.mode.gradient, covariance, prior.variance, self.tie)


def _at(table: VoteTable, z: Floats, start: Floats | None = None) -> _State:
    scales = dict(zip(_PRIOR, (_MEDIANS * np.exp(_SPREADS * z)).tolist(), strict=True))
    prior, tie = _kernels(table, scales), scales["tie"]
    mode = _laplace(prior.votes, table.sign, tie, np.zeros(len(table.sign)) if start is None else start)
    return _State(prior, mode, tie, mode.evidence - 0.5 * float(z @ z))


@dataclass(frozen=True)
class _Kernels:
    """Prior covariances: of the differences voted on (N, N), of utilities (L, L), between both (L, N)."""

    votes: Floats
    lams: Floats
    cross: Floats
    variance: Floats


def _kernels(table: VoteTable, scales: dict[str, float]) -> _Kernels:
    shape, design = _matern(table.lams, scales["length"]), table.design
    utility, prompt, rater = (scales[name] ** 2 for name in ("utility", "prompt", "rater"))
    if table.rater.max(initial=0) == 0:  # one rater's departure can't be told from the curve
        rater = 0.0
    same_prompt, same_image, same_rater = (np.equal.outer(ids, ids) for ids in (table.prompt, table.image, table.rater))
    votes = (design @ shape @ design.T) * (utility + prompt * same_prompt + rater * same_rater)
    votes += prompt * same_image * (design @ design.T)
    variance = 2 * ((prompt + rater) * (1 - shape) + prompt * (1 - np.eye(len(shape))))
    return _Kernels(votes, utility * shape, utility * shape @ design.T, variance)


def _matern(lams: Floats, length: float) -> Floats:
    """Matérn 5/2 correlations; ``length`` is a share of the range of lams."""
    r = np.sqrt(5) * np.abs(lams[:, None] - lams) / ((float(np.ptp(lams)) or 1.0) * length)
    return (1 + r + np.square(r) / 3) * np.exp(-r)


@dataclass(frozen=True)
class _Mode:
    """Where the posterior is largest: the gradient (N,) of the log likelihood, and what solves with its curvature."""

    gradient: Floats
    root: Floats
    factor: Floats
    evidence: float

    def solve(self, right: Floats) -> Floats:
        """(K + W⁻¹)⁻¹ right, of the prior covariance K and the likelihood's negative curvature W."""
        return self.root[:, None] * cho_solve((self.factor, True), self.root[:, None] * right)


def _laplace(prior: Floats, sign: Floats, tie: float, start: Floats) -> _Mode:
    """Newton's method (Rasmussen & Williams, algorithm 3.1): the likelihood is log-concave, so it has one mode.

    A step that would lose is halved: where the prior is wide, whole steps may go to and fro for ever.

    Args:
        prior: K, (N, N).
        sign: of the votes, (N,).
        tie: Davidson's parameter.
        start: of a = K⁻¹ d, (N,), which is the gradient of the log likelihood at the mode.
    """
    a, d = start, prior @ start
    while True:
        log_p, gradient, curvature = log_likelihood(d, sign, tie)
        root = np.sqrt(curvature)
        factor = cholesky(np.eye(len(sign)) + root[:, None] * prior * root, lower=True)
        b = curvature * d + gradient
        step = b - root * cho_solve((factor, True), root * (prior @ b)) - a
        move, value = prior @ step, log_p - 0.5 * float(a @ d)
        share = 1.0
        while share > _LEAST_SHARE and _log_joint(a + share * step, d + share * move, sign, tie) < value:
            share /= 2
        if np.abs(move).max(initial=0) < _STILL or share <= _LEAST_SHARE:  # where none gains, rounding is all there is
            evidence = value - float(np.log(np.diag(factor)).sum())
            return _Mode(a, root, factor, evidence)
        a, d = a + share * step, d + share * move


def _log_joint(a: Floats, d: Floats, sign: Floats, tie: float) -> float:
    """Log likelihood plus log prior density of differences d = K a, but for a constant."""
    return log_likelihood(d, sign, tie)[0] - 0.5 * float(a @ d)


def log_likelihood(d: Floats, sign: Floats, tie: float) -> tuple[float, Floats, Floats]:
    """Of votes whose utilities differ by d (N,): the log's sum, its gradient, its negative second derivatives."""
    half = np.abs(d) / 2
    small = np.exp(-2 * half)  # all is divided by exp(|d| / 2)
    total = 1 + small + tie * np.exp(-half)
    log_p = sign * d / 2 - half - np.log(total) + np.where(sign == 0, np.log(tie), 0)
    slope = np.sign(d) * (1 - small) / (2 * total)
    curvature = (4 * small + tie * np.exp(-half) * (1 + small)) / (4 * np.square(total))
    return float(log_p.sum()), sign / 2 - slope, curvature


def win_share(d: Floats, tie: float) -> Floats:
    """The probability of a win plus half that of a tie, of utilities that differ by d."""
    half = np.abs(d) / 2
    small = np.exp(-2 * half)
    return 0.5 + 0.5 * np.sign(d) * (1 - small) / (1 + small + tie * np.exp(-half))
