"""From a few sampled lams to every lam of the grid, by a Gaussian process along lam.

The mean change over prompts is fitted first; a prompt's own departure from it is then interpolated from the lams that
it was sampled at, and fades to the mean where there are none. The process knows the noise of each point: the variance
of paired changes between the seeds of a prompt, over the number of pairs. What differs between prompts is left to the
bootstrap of the choice.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from deradiff.results import Results
from deradiff.search.observed import Floats, Observed

LEAST_NOISE = 1e-4  # of a curve in units of its largest mean change: keeps the fit solvable
SCALE, SCALES = 0.5, (0.2, 3.0)  # lengths along lam, in shares of the range: where the fit starts, and may end


def filled(seen: Observed, grid: tuple[float, ...], anchor_beta: float | None, better: Mapping[str, str]) -> Results:
    """A table (P, 1, G) of the prompts in use, to choose from."""
    prompts, _ = seen.used
    tables = {name: _filled(seen, name, np.array(grid) / grid[-1])[:, None] for name in seen.tables}
    path_kl = tables.pop("path_kl", None)
    return Results(
        prompts=tuple(map(str, range(prompts))),
        seeds=(0,),
        lams=grid,
        scores=tables,
        images=np.full((prompts, 1, len(grid)), "", dtype=object),
        path_kl=path_kl,
        better=better,
        anchor_beta=anchor_beta,
    )


def _filled(seen: Observed, name: str, x: Floats) -> Floats:
    changes, lams = seen.prompt_means(name), seen.lams
    means = np.nanmean(changes[:, lams], axis=0)
    size = float(np.abs(means).max()) or 1.0
    noise, pairs = seen.seed_variance(name) / size**2, seen.known.sum(axis=1)
    kernel: Any = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(SCALE, SCALES, nu=2.5)
    of_means = LEAST_NOISE + noise[lams] / pairs.sum(axis=0)[lams]
    process: Any = GaussianProcessRegressor(kernel, alpha=of_means)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is as good as any
        process.fit(x[lams, None], means / size)
    mean = process.predict(x[:, None])
    own = np.stack([_interpolated(process, change / size - mean, x) for change in changes[: seen.used[0]]])
    table = mean + own - own.mean(axis=0)
    reference = np.nanmean(seen.tables[name][: len(own), :, 0], axis=1, keepdims=True)
    return size * (table - table[:, [0]]) + reference


def _interpolated(process: Any, departure: Floats, x: Floats) -> Floats:
    """A prompt's departure from the mean, through every lam it has: smoothing would narrow what prompts differ by."""
    places = np.flatnonzero(np.isfinite(departure))
    among = process.kernel_(x[places, None]) + LEAST_NOISE * np.eye(len(places))
    return process.kernel_(x[:, None], x[places, None]) @ np.linalg.solve(among, departure[places])
