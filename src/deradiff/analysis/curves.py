"""One reward along lam: means, paired changes to the reference, win rates.

Images of one prompt are alike, so prompts are the clusters. A change is within one (prompt, seed), whose images
share all noise. A table may have gaps: a lam's change is of the pairs that exist there.
"""

from dataclasses import dataclass

import numpy as np

from deradiff.analysis.limits import Floats, PromptMeans, prompt_means
from deradiff.analysis.statistics import LEVEL, Interval, intervals, simultaneous_risk, win_rates
from deradiff.errors import ResultsError
from deradiff.results import Results

TIED = 0.1  # share of pairs that score exactly the same, from which scores count as discrete
FEW_VALUES = 20


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One reward along lam, with 95% intervals clustered by prompt.

    Attributes:
        reward: name of the reward.
        lams: L mixing weights, ascending.
        score: the mean score at each lam: that of lam = 0, plus the change.
        change: the paired difference to lam = 0 at each lam; exactly 0 at lam = 0.
        band: the same with limits that hold at all lams at once.
        pairs: how many pairs of images each change is of.
        wins: share of images above their pair at lam = 0, ties half, in [0, 1].
        wins_anchor: the same against lam = 1; None where that wasn't sampled.
    """

    reward: str
    lams: tuple[float, ...]
    score: tuple[float, ...]
    change: tuple[Interval, ...]
    band: tuple[Interval, ...]
    pairs: tuple[int, ...]
    wins: tuple[Interval, ...]
    wins_anchor: tuple[Interval, ...] | None


def paired_curve(results: Results, reward: str) -> Curve:
    """Mean score, paired change to lam = 0 and win rates along lam, clustered by prompt.

    Raises:
        ResultsError: a reward that is unknown or scored in part, lam = 0 missing, or a single lam or prompt.
    """
    results.scored(reward)  # raises for one that isn't there
    check_answerable(results)
    lams, scores, zero = tuple(results.lams), results.scores[reward], results.zero
    sample = paired_changes(results, reward)
    change = intervals(sample)
    each = simultaneous_risk(np.delete(sample.means, zero, axis=1), 1 - LEVEL, two_sided=True)
    band = intervals(sample, 1 - 2 * each)
    exact = Interval(mean=0.0, low=0.0, high=0.0)
    change[zero] = band[zero] = exact
    reference = float(np.nanmean(scores[:, :, zero]))
    wins_anchor = win_rates(scores, scores[:, :, [lams.index(1)]]) if 1 in lams else None
    return Curve(
        reward=reward,
        lams=lams,
        score=tuple(reference + interval.mean for interval in change),
        change=tuple(change),
        band=tuple(band),
        pairs=tuple(np.isfinite(scores - scores[:, :, [zero]]).sum(axis=(0, 1)).tolist()),
        wins=tuple(win_rates(scores, scores[:, :, [zero]])),
        wins_anchor=None if wins_anchor is None else tuple(wins_anchor),
    )


def check_answerable(results: Results) -> None:
    """Check that a table can say how rewards change.

    Raises:
        ResultsError: lam = 0 missing, or a single lam or prompt.
    """
    lams, swept = results.lams, ", ".join(f"{lam:g}" for lam in results.lams)
    if len(lams) < 2:
        raise ResultsError(f"one lam only, {swept}: nothing to compare; sweep lam = 0 and others into it")
    if 0 not in lams:
        raise ResultsError(f"the reference, lam = 0, is not among the lams {swept}; sweep it too: --lams 0")
    if len(results.prompts) < 2:
        raise ResultsError("one prompt only: intervals need the spread between prompts; sweep more prompts")


def paired_changes(results: Results, reward: str, floor: float | None = None) -> PromptMeans:
    """Each prompt's mean change to lam = 0 at each lam, and the largest changes that an unsampled prompt could have.

    A change is bounded where scores are (`score_bounds`): from the best prompt at lam = 0 to the lowest score, and from
    the worst to the highest. Where all pairs of a lam tie, their spread says nothing, and the observed scores are
    the bounds whatever the reward.

    Args:
        results: with lam = 0.
        reward: its name.
        floor: the lowest score possible, instead of that of the reward's card.
    """
    scores = results.scores[reward]
    reference = scores[:, :, [results.zero]]
    lowest, highest = score_bounds(results, reward, floor)
    worst, best = reference_range(results, reward)
    sample = prompt_means(scores - reference, lowest - best, highest - worst)
    reach = float(np.nanmax(scores) - np.nanmin(scores)) or abs(best) or 1.0
    return PromptMeans(
        means=sample.means,
        noise=sample.noise,
        lowest=np.where(sample.tied & np.isnan(sample.lowest), -reach, sample.lowest),
        highest=np.where(sample.tied & np.isnan(sample.highest), reach, sample.highest),
    )


def reference_range(results: Results, reward: str) -> tuple[float, float]:
    """The lowest and the highest mean of a prompt at lam = 0."""
    reference = results.scores[reward][:, :, results.zero]
    means = np.nanmean(reference[np.isfinite(reference).any(axis=1)], axis=1)
    return float(means.min()), float(means.max())


def score_bounds(results: Results, reward: str, floor: float | None = None) -> tuple[float, float]:
    """The lowest and highest score possible, nan where unknown.

    ``floor`` or that of the reward's card; of discrete scores (`is_discrete`) the smallest and the largest observed,
    with 0 among them.
    """
    scores = results.scores[reward]
    smallest, largest = min(float(np.nanmin(scores)), 0.0), max(float(np.nanmax(scores)), 0.0)
    if smallest == largest:  # all scores are 0
        smallest, largest = -1.0, 1.0
    discrete = is_discrete(scores, results.zero)
    floor = results.info(reward).floor if floor is None else floor
    return (floor if floor is not None else smallest if discrete else np.nan), (largest if discrete else np.nan)


def is_discrete(scores: Floats, zero: int) -> bool:
    """Whether scores (P, S, L) are counts rather than measures: few values, or many pairs that tie exactly.

    Lams at which all pairs tie are left out: there the images may be the same.
    """
    values = np.unique(scores[np.isfinite(scores)])
    if len(values) <= min(FEW_VALUES, np.isfinite(scores).sum() / 2):
        return True
    others = np.delete(scores, zero, axis=2)
    pairs = np.isfinite(others) & np.isfinite(scores[:, :, [zero]])
    ties = pairs & (others == scores[:, :, [zero]])
    differing = (ties.sum(axis=(0, 1)) < pairs.sum(axis=(0, 1))) & (pairs.sum(axis=(0, 1)) > 0)
    return bool(differing.any() and ties[:, :, differing].sum() >= TIED * pairs[:, :, differing].sum())


def equivalent_beta(results: Results, lam: float) -> float | None:
    """The KL strength lam stands for, anchor_beta / lam; None for lam <= 0 or an unknown anchor_beta."""
    return results.anchor_beta / lam if results.anchor_beta is not None and lam > 0 else None
