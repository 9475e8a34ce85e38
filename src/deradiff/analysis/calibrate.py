"""The beta an anchor *behaves like* under a reward, from images of the reference alone.

An anchor that is the optimum at beta has log p_aligned / p_ref = r / beta + const(prompt). L estimates that log-ratio
of each image, so the slope of L on the reward, within prompts, is 1 / beta. Strong anchors saturate: where the slope
changes along the reward no single beta describes them, and none is estimated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import t as student

from deradiff.analysis.messages import FEW_PROMPTS
from deradiff.analysis.reweight import unsupported_reason
from deradiff.errors import ResultsError
from deradiff.results import HasResults, Results, as_results

Floats = NDArray[np.float64]

_LEVEL = 0.05  # of the test of linearity
_ROUNDING = 1e-12  # differences of scores, as a share of them, that are none
_BEND = 1.5  # by how much the slope must change along the reward to matter


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The regression of an anchor's implicit reward L on a reward, within prompts of the reference.

    Attributes:
        reward: name of the reward.
        images: number of images of the reference that it is estimated from.
        prompts: number of their prompts.
        slope: of L on the reward, in nats a unit.
        slope_interval: its 95% limits, robust to what images of a prompt share.
        slopes: at the 10th and the 90th percentile of the reward, from a quadratic fit.
        r2: share of L's variance within prompts that the line explains.
        linearity_p: of the test that the slope is one and the same.
        nominal: the beta on the anchor's card, or None.
    """

    reward: str
    images: int
    prompts: int
    slope: float
    slope_interval: tuple[float, float]
    slopes: tuple[float, float]
    r2: float
    linearity_p: float
    nominal: float | None

    @property
    def refusal(self) -> str | None:
        """Why no single beta describes the anchor; None where one does."""
        low, high = self.slopes
        if self.prompts < FEW_PROMPTS:
            return f"no beta from {self.prompts} prompts: expected {FEW_PROMPTS} or more to test that one describes it"
        if self.slope_interval[0] <= 0:
            return f"L doesn't rise with {self.reward}: the slope's interval {_pair(self.slope_interval)} contains 0"
        bent = min(low, high) <= 0 or max(low, high) / min(low, high) > _BEND
        if self.linearity_p < _LEVEL and bent:
            return (
                f"no one beta: L rises by {low:.3g} nats a unit of {self.reward} where it is low and by {high:.3g} "
                f"where it is high (linearity is rejected, p = {self.linearity_p:.2g})"
            )
        return None

    @property
    def beta(self) -> float | None:
        """The KL strength the anchor behaves like, in units of the reward; None where no single one describes it."""
        return None if self.refusal else 1 / self.slope

    @property
    def beta_interval(self) -> tuple[float, float] | None:
        """Its 95% limits."""
        return None if self.refusal else (1 / self.slope_interval[1], 1 / self.slope_interval[0])


def calibrate(source: Results | HasResults, reward: str, nominal: float | None = None) -> Calibration:
    """The beta an anchor behaves like under a reward.

    Args:
        source: a run or its results, with lam = 0, at two seeds or more, whose L was recorded.
        reward: its name.
        nominal: the beta on the anchor's card.

    Raises:
        ResultsError: a reward that is unknown or scored in part, lam = 0 missing, L not recorded, too few images, or a
            constant reward.
    """
    results = as_results(source)
    table = results.scored(reward)
    if 0 not in results.lams:
        raise ResultsError("images of the reference, lam = 0, are needed; sweep it too")
    if reason := unsupported_reason(results):
        raise ResultsError(reason)
    log_ratio, scores = results.paths["implicit_reward"][:, :, results.zero], table[:, :, results.zero]
    if scores.shape[1] < 2 or not np.isfinite(log_ratio).all():
        raise ResultsError("expected L of two or more images a prompt at lam = 0; sweep more seeds")
    if not np.ptp(_within(scores)) > _ROUNDING * np.abs(scores).max():
        raise ResultsError(f"{reward} is the same for all images of a prompt, so L can't be compared with it")
    (slope,), variance = _fit(log_ratio, [scores])
    half = float(student.ppf(0.975, len(scores) - 1) * np.sqrt(variance[0, 0]))
    residual = _within(log_ratio) - slope * _within(scores)
    low, high = np.quantile(scores, [0.1, 0.9])
    linear, square, ratio = float(slope), 0.0, 0.0
    if _can_bend(scores):
        (linear, square), covariance = _fit(log_ratio, [scores, scores**2])
        ratio = square / float(np.sqrt(covariance[1, 1])) if covariance[1, 1] > 0 else 0.0
    return Calibration(
        reward=reward,
        images=scores.size,
        prompts=len(scores),
        slope=float(slope),
        slope_interval=(float(slope) - half, float(slope) + half),
        slopes=(float(linear + 2 * square * low), float(linear + 2 * square * high)),
        r2=float(1 - np.square(residual).sum() / spread) if (spread := np.square(_within(log_ratio)).sum()) else 0.0,
        linearity_p=float(2 * student.sf(abs(ratio), len(scores) - 1)),
        nominal=nominal,
    )


def _within(values: Floats) -> Floats:
    return values - values.mean(axis=1, keepdims=True)


def _can_bend(scores: Floats) -> bool:
    """Whether the square says more than the score: not where there are two values, through which any line goes."""
    line, square = _within(scores), _within(scores**2)
    rest = square - line * (line * square).sum() / np.square(line).sum()
    return bool(np.square(rest).sum() > 1e-12 * np.square(square).sum())


def _fit(target: Floats, regressors: list[Floats]) -> tuple[Floats, Floats]:
    """Least squares within prompts (P, S), and the coefficients' covariance with prompts as clusters (CR1)."""
    columns = np.stack([_within(values) for values in regressors], axis=-1)  # (P, S, K)
    moment, count = cho_factor(np.einsum("psk,psl->kl", columns, columns)), len(target)
    coefficients = cho_solve(moment, np.einsum("psk,ps->k", columns, _within(target)))
    residual = _within(target) - columns @ coefficients
    scores = np.einsum("psk,ps->pk", columns, residual)
    half = cho_solve(moment, scores.T)  # (K, P): the sandwich is its square
    return coefficients, count / (count - 1) * half @ half.T


def _pair(limits: tuple[float, float]) -> str:
    return f"[{limits[0]:.3g}, {limits[1]:.3g}]"
