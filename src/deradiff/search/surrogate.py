"""From a few sampled lams to every lam of the grid, for all prompts and seeds.

A Gaussian process (`deradiff.search.kernels`) is fitted to the paired changes of all images. Given the mean curve the
prompts are independent, so the mean curve is fitted first and each prompt then conditioned by itself, which is exact
and as cheap for many prompts as for few (Rasmussen & Williams 2006, section 2.7). It assumes that changes are smooth
along lam: it misses a spike between two sampled lams.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor

from deradiff.analysis.limits import Floats
from deradiff.search.kernels import prior

NUGGET = 1e-4  # of the variance of changes: keeps everything solvable
FIT = 200  # changes that the kernel is fitted to: more make it slower and no better


@dataclass(frozen=True)
class Surrogate:
    """One reward, each prompt's mean over all its seeds.

    Attributes:
        table: (prompts in use, G), the mean of what sampling everything would give, with the prompts' departures from
            the mean curve as large as they are in a sampled table: a mean of tables would make prompts look more alike,
            and a guard safer, than they are.
        samples: (N, P, G), from the posterior of what sampling every image, of all prompts, would give.
    """

    table: Floats
    samples: Floats


class _Prompt(NamedTuple):
    """What is known of a prompt's changes beyond lam = 0: inputs (n, 3) of the kernel, changes (n,)."""

    rows: Floats
    changes: Floats


def fit_surrogate(scores: Floats, lams: Sequence[float], n_samples: int, seed: int = 0) -> Surrogate:
    """Fill in the gaps of one reward's scores; the same for the same seed.

    Args:
        scores: (P, S, G) on a grid of lams that begins at 0, nan where nothing was sampled: the first prompts and seeds
            of each lam that was.
        lams: G, ascending from 0.
        n_samples: number of tables sampled from the posterior.
        seed: of these.
    """
    rng, used = np.random.default_rng(seed), int(np.isfinite(scores).any(axis=(1, 2)).sum())
    count, seeds, points = scores.shape
    x = np.asarray(lams) / lams[-1]
    changes = scores - scores[:, :, [0]]
    size = float(np.nanstd(changes[:, :, 1:])) or 1.0
    prompts = [_prompt(change / size, number, x) for number, change in enumerate(changes)]
    mean, prompt, pair = _fitted(prompts[:used])
    covariances = [prompt(rows) + pair(rows) + NUGGET * np.eye(len(rows)) for rows, _ in prompts]
    columns = [(rows[:, [0]] == x).astype(float) for rows, _ in prompts]  # (n, G) picks the mean curve at each change
    curve, spread = _mean_curve(mean(_grid(x)), prompts, columns, covariances)
    curves = np.vstack([curve, curve + rng.normal(size=(n_samples, points)) @ _root(spread).T])
    tables = np.empty((1 + n_samples, count, points))
    for number, ((rows, change), h, covariance) in enumerate(zip(prompts, columns, covariances, strict=True)):
        here = _grid(x, number)
        cross = prompt(here, rows) + pair.k1(here, rows) / seeds  # a prompt's mean is of ``seeds`` pairs
        weights = _solve(covariance, cross.T)  # (n, G)
        residual = _root(prompt(here) + pair(here) / seeds - cross @ weights)
        noise = np.vstack([np.zeros(points), rng.normal(size=(n_samples, points))])
        tables[:, number] = curves + (change - curves @ h.T) @ weights + noise @ residual.T
    tables = size * (tables - tables[:, :, [0]])
    # prompts that haven't been sampled start where the others do
    reference = np.resize(np.nanmean(scores[:used, :, 0], axis=1), count)[:, None]
    return Surrogate(_spread_out(tables[0, :used], tables[1:]) + reference[:used], tables[1:] + reference)


def _mean_curve(
    prior: Floats, prompts: list[_Prompt], columns: list[Floats], covariances: list[Floats]
) -> tuple[Floats, Floats]:
    """The mean curve (G,) on the grid given all prompts' changes, and its covariance."""
    identity = np.eye(len(prior))
    precision = _solve(prior + NUGGET * identity, identity)
    weighted = np.zeros(len(prior))
    for (_, changes), h, covariance in zip(prompts, columns, covariances, strict=True):
        solved = _solve(covariance, h)
        precision += h.T @ solved
        weighted += solved.T @ changes
    posterior = _solve(precision, identity)
    return posterior @ weighted, posterior


def _solve(covariance: Floats, target: Floats) -> Floats:
    """covariance⁻¹ target, by Cholesky; nothing of a prompt of which nothing is known."""
    return cho_solve(cho_factor(covariance), target) if len(covariance) else target


def _grid(x: Floats, prompt: int = 0) -> Floats:
    return np.stack([x, np.full_like(x, prompt), np.zeros_like(x)], axis=1)


def _prompt(change: Floats, number: int, x: Floats) -> _Prompt:
    seeds, lams = np.nonzero(np.isfinite(change[:, 1:]))
    rows = np.stack([x[lams + 1], np.full(len(lams), float(number)), seeds.astype(float)], axis=1)
    return _Prompt(rows, change[seeds, lams + 1])


def _fitted(prompts: list[_Prompt]) -> tuple[Any, Any, Any]:
    """The three parts of the kernel, fitted to whole prompts, of which the first have the most lams."""
    counts = np.cumsum([len(prompt.changes) for prompt in prompts])
    first = prompts[: max(2, int(np.searchsorted(counts, FIT, side="right")))]
    process: Any = GaussianProcessRegressor(prior(), alpha=NUGGET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is as good as any
        process.fit(*map(np.concatenate, zip(*first, strict=True)))
    shared, pair = process.kernel_.k1, process.kernel_.k2
    return shared.k1, shared.k2, pair


def _root(covariance: Floats) -> Floats:
    """A with A Aᵀ = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def _spread_out(table: Floats, samples: Floats) -> Floats:
    """The table (P, G) with its departures from the mean scaled to their size in the samples (N, P, G)."""
    mean, spread = table.mean(axis=0), table.std(axis=0)
    target = np.sqrt(samples.var(axis=1).mean(axis=0))
    return mean + (table - mean) * np.divide(target, spread, out=np.ones_like(spread), where=spread > 0)
