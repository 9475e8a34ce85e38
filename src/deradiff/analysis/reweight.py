"""The whole reward-against-lam curve on [0, 1] from images at one or a few lams, without sampling at the others.

Every path carries L, its log-ratio of the anchor to the reference, and Q (`deradiff.divergence`). With n_a paths of a
prompt sampled at each lam_a, all of them stand for the exact mixture p_ref exp(lam L) at any lam with weights

    w = exp(lam L) / Σ_a n_a exp(lam_a L + ½ lam_a (1 − lam_a) Q),

the balance heuristic (Veach & Guibas 1995; Shirts & Chodera 2008), normalised to 1 within a prompt; unnormalised they
add up to Z, and the mixture's KL to the reference is lam E[L] − log Z(lam) / Z(0). The curve is of the *exact* mixture,
which particles sample and plain stepwise mixing approximates. The effective sample size says how far it can be
trusted. A lam beyond 1 is an error: there L says nothing about a trained anchor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from deradiff.analysis.limits import prompt_means
from deradiff.analysis.statistics import Interval, intervals
from deradiff.errors import ResultsError
from deradiff.results import HasResults, Results, as_results

Floats = NDArray[np.float64]

LEAST_ESS = 0.2  # of the images of a prompt, below which a lam isn't trusted
LEAST_COUNT = 4  # images that the same must be worth: of few, one alone has a fair share
GRID = tuple(round(0.05 * step, 2) for step in range(21))


@dataclass(frozen=True, kw_only=True)
class Reweighted:
    """A reward along lam, estimated from images at other lams.

    Attributes:
        reward: name of the reward.
        sampled: the lams whose images were used.
        lams: G mixing weights in [0, 1], ascending.
        score: the mean score at each, with its 95% interval over prompts.
        change: the same of its difference to lam = 0.
        kl: of the exact mixture to the reference at each, in nats, averaged over prompts.
        ess: effective sample size at each as a share of a prompt's images, averaged over prompts; in (0, 1].
        trusted: whether that share is 0.2 or more, and worth 4 images or more.
    """

    reward: str
    sampled: tuple[float, ...]
    lams: tuple[float, ...]
    score: tuple[Interval, ...]
    change: tuple[Interval, ...]
    kl: tuple[float, ...]
    ess: tuple[float, ...]
    trusted: tuple[bool, ...]


def reweight(
    source: Results | HasResults, reward: str, lams: Sequence[float] = GRID, sampled: Sequence[float] | None = None
) -> Reweighted:
    """A reward's curve over lam in [0, 1].

    Args:
        source: a run or its results, whose paths were recorded on a sampler with known kernels (Euler-ancestral, DDPM).
        reward: its name.
        lams: where the curve is wanted.
        sampled: lams of the sweep whose images to use; all in [0, 1] by default.

    Raises:
        ResultsError: a lam beyond [0, 1], a reward that is unknown or scored in part, or paths that were not recorded.

    Prompts of which an image is missing or not scored at a lam that is used are left out.
    """
    check_within(lams)
    results = without_gaps(as_results(source), reward, sampled)
    table = results.scored(reward)
    if reason := unsupported_reason(results):
        raise ResultsError(reason)
    used = usable(results, sampled)
    indices = [results.lams.index(lam) for lam in used]
    log_ratio, q = (_flat(results.paths[name], indices) for name in ("implicit_reward", "q"))
    scores = _flat(table, indices)
    logs = [log_weights(log_ratio, q, used, lam) for lam in lams]
    weights = [softmax(log, axis=1) for log in logs]
    means = [(weight * scores).sum(axis=1) for weight in weights]
    reference = (path_weights(log_ratio, q, used, 0.0) * scores).sum(axis=1)
    log_z = [np.asarray(logsumexp(log, axis=1)) for log in (log_weights(log_ratio, q, used, 0.0), *logs)]
    kls = [
        lam * (weight * log_ratio).sum(axis=1) - (z - log_z[0])
        for lam, weight, z in zip(lams, weights, log_z[1:], strict=True)
    ]
    shares = [float((1 / np.square(weight).sum(axis=1)).mean() / scores.shape[1]) for weight in weights]
    return Reweighted(
        reward=reward,
        sampled=used,
        lams=tuple(lams),
        score=tuple(intervals(prompt_means(np.stack(means, axis=1)[:, None]))),
        change=tuple(intervals(prompt_means((np.stack(means, axis=1) - reference[:, None])[:, None]))),
        kl=tuple(float(kl.mean()) for kl in kls),
        ess=tuple(shares),
        trusted=tuple(share >= LEAST_ESS and share * scores.shape[1] >= LEAST_COUNT - 1e-6 for share in shares),
    )


def path_weights(log_ratio: Floats, q: Floats, sampled: Sequence[float], lam: float) -> Floats:
    """Weights (P, N) that carry the paths of P prompts to lam, summing to 1 over a prompt's; see `log_weights`."""
    return softmax(log_weights(log_ratio, q, sampled, lam), axis=1)


def log_weights(log_ratio: Floats, q: Floats, sampled: Sequence[float], lam: float) -> Floats:
    """The same, not normalised: w times the number of paths at each lam, in logs.

    Args:
        log_ratio: L (P, N) of N paths a prompt, as many at each of ``sampled``.
        q: Q (P, N).
        sampled: the lams they were sampled at, in any order.
        lam: wanted.
    """
    sampling = np.stack([a * log_ratio + 0.5 * a * (1 - a) * q for a in sampled])
    return lam * log_ratio - np.logaddexp.reduce(sampling, axis=0)


def unsupported_reason(results: Results) -> str | None:
    """Why nothing of a sweep can be reweighted; None where something can."""
    if len(results.prompts) < 2:
        return "one prompt only: intervals need the spread between prompts; sweep more prompts"
    if not {"implicit_reward", "q"} <= set(results.paths):
        return (
            "this run recorded no implicit reward L: it takes diagnostics, --policy exact and a sampler whose noise is "
            "known, such as --scheduler EulerAncestralDiscreteScheduler or DDPMScheduler"
        )
    if not _plain(results):
        return f"no images at a lam in [0, 1] without particles among {list(results.lams)}; sweep lam = 0 and 1"
    return None


def without_gaps(results: Results, reward: str, sampled: Sequence[float] | None = None) -> Results:
    """The prompts that have all seeds, with scores and statistics, at the lams that can be used."""
    if not {"implicit_reward", "q"} <= set(results.paths):
        return results
    known = np.isfinite(results.paths["implicit_reward"] + results.paths["q"] + results.scored(reward))
    used = [
        index
        for index, lam in enumerate(results.lams)
        if (0 <= lam <= 1 if sampled is None else lam in sampled) and known[:, :, index].any()
    ]
    whole = known[:, :, used].all(axis=(1, 2))
    if whole.all() or not whole.any():
        return results
    return results.select(np.flatnonzero(whole).tolist(), range(len(results.lams)))


def _plain(results: Results) -> tuple[float, ...]:
    """The lams in [0, 1] sampled by stepwise mixing without particles, with L and Q recorded for every image."""
    nothing = np.full(results.shape, np.nan)
    known = np.isfinite(results.paths["implicit_reward"] + results.paths["q"])
    fit = known & ~np.isfinite(results.paths.get("ess", nothing))
    return tuple(lam for index, lam in enumerate(results.lams) if 0 <= lam <= 1 and bool(np.all(fit[:, :, index])))


def usable(results: Results, sampled: Sequence[float] | None = None) -> tuple[float, ...]:
    """The lams of a sweep whose images can be reweighted, or those requested.

    Raises:
        ResultsError: a requested lam was not swept, is beyond [0, 1], or was corrected by particles.
    """
    plain = _plain(results)
    if sampled is None:
        return plain
    check_within(sampled)
    if missing := [lam for lam in sampled if lam not in results.lams]:
        raise ResultsError(f"lam = {missing[0]:g} was not swept; there are {list(results.lams)}")
    if moved := [lam for lam in sampled if lam not in plain]:
        raise ResultsError(f"the images at lam = {moved[0]:g} can't be reweighted; use some of {list(plain)}")
    return tuple(sampled)


def check_within(lams: Sequence[float]) -> None:
    """Raise ResultsError for a lam beyond [0, 1]: path weights were measured to be wrong there."""
    if beyond := [lam for lam in lams if not 0 <= lam <= 1]:
        raise ResultsError(
            f"lam = {beyond[0]:g} is beyond [0, 1], where reweighting was measured to be wrong (docs/exactness.md); "
            "sample it with deradiff sweep"
        )


def _flat(table: Floats, indices: list[int]) -> Floats:
    """(P, lams x S) of a table (P, S, L)."""
    return np.moveaxis(table[:, :, indices], 2, 1).reshape(len(table), -1)
