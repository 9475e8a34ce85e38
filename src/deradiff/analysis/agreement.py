"""How far raters agree with each other and with themselves, and how far automatic rewards agree with the raters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deradiff.analysis.limits import Floats
from deradiff.analysis.statistics import LEVEL, Interval
from deradiff.analysis.vote_design import as_pair
from deradiff.results import Results
from deradiff.votes import Vote

RESAMPLES = 400  # of the bootstrap


@dataclass(frozen=True, kw_only=True)
class RaterAgreement:
    """How far raters agree.

    Attributes:
        alpha: Krippendorff's, of the ordinal values smaller lam, tie, larger lam: 1 for full agreement, 0 for chance;
            with 95% limits by a bootstrap over pairs. None where no two raters judged the same pair, or all votes on
            such pairs are the same.
        pairs: how many pairs several raters judged.
        repeats: how many pairs a rater judged again.
        consistent: the share of these with the same outcome; None without any.
    """

    alpha: Interval | None
    pairs: int
    repeats: int
    consistent: float | None


def rater_agreement(votes: Sequence[Vote], seed: int = 0) -> RaterAgreement:
    """How far raters agree with each other and with themselves; of a rater's votes on one pair the first counts.

    Args:
        votes: oldest first.
        seed: of the bootstrap.
    """
    judged: dict[tuple[object, ...], dict[str, list[int]]] = {}
    for vote in votes:
        judged.setdefault((vote.guidance, *as_pair(vote).images), {}).setdefault(vote.rater, []).append(vote.sign)
    again = [signs for raters in judged.values() for signs in raters.values() if len(signs) > 1]
    shared = [{rater: signs[0] for rater, signs in raters.items()} for raters in judged.values() if len(raters) > 1]
    return RaterAgreement(
        alpha=_alpha_interval(shared, seed),
        pairs=len(shared),
        repeats=len(again),
        consistent=float(np.mean([signs[0] == signs[1] for signs in again])) if again else None,
    )


def _alpha_interval(shared: Sequence[dict[str, int]], seed: int) -> Interval | None:
    if not shared:
        return None
    names = sorted({rater for raters in shared for rater in raters})
    table = np.array([[raters.get(name, np.nan) for raters in shared] for name in names])
    estimate = _alpha(table)
    if estimate is None:
        return None
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(shared), size=(RESAMPLES, len(shared)))
    alphas = [alpha for alpha in (_alpha(table[:, draw]) for draw in draws) if alpha is not None]
    low, high = np.quantile(alphas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean=estimate, low=float(low), high=float(high))


def _alpha(table: Floats) -> float | None:
    """Krippendorff's alpha of ordinal values (raters, pairs), nan for gaps; None where all values are the same.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": the ordinal metric is a difference of mid-ranks.
    """
    values = np.unique(table[np.isfinite(table)])
    counts = (table[:, :, None] == values).sum(axis=0)  # (pairs, values)
    counts = counts[counts.sum(axis=1) > 1]
    weighted = counts / (counts.sum(axis=1, keepdims=True) - 1)
    coincidences = counts.T @ weighted - np.diag(weighted.sum(axis=0))
    totals = coincidences.sum(axis=0)
    if np.count_nonzero(totals) < 2:
        return None
    ranks = totals.cumsum() - totals / 2
    distances = np.square(ranks[:, None] - ranks)
    disagreement, by_chance = (coincidences * distances).sum(), totals @ distances @ totals
    return float(1 - (totals.sum() - 1) * disagreement / by_chance)


def reward_agreement(votes: Iterable[Vote], results: Results, seed: int = 0) -> dict[str, tuple[Interval, int]]:
    """By reward the share of decided votes whose better image it scores higher, and how many votes that is of.

    Where both score the same, that is half a vote. The 95% limits are by a bootstrap over prompts.

    Args:
        votes: at the guidance of the table; ties don't count.
        results: the table.
        seed: of the bootstrap.
    """
    axes = [
        {value: index for index, value in enumerate(axis)} for axis in (results.prompts, results.seeds, results.lams)
    ]
    decided = [vote for vote in votes if vote.sign and vote.prompt in axes[0] and vote.seed in axes[1]]
    agreements = {}
    for name, scores in results.scores.items():
        by_prompt: dict[str, list[float]] = {}
        for vote in decided:
            low, high = (scores[axes[0][vote.prompt], axes[1][vote.seed], axes[2][lam]] for lam in vote.lams)
            if np.isfinite(low) and np.isfinite(high):
                by_prompt.setdefault(vote.prompt, []).append(0.5 + 0.5 * np.sign(high - low) * vote.sign)
        if by_prompt:
            agreements[name] = _share(list(by_prompt.values()), seed), sum(map(len, by_prompt.values()))
    return agreements


def _share(clusters: Sequence[Sequence[float]], seed: int) -> Interval:
    """The mean of all values, with limits by a bootstrap over clusters."""
    sums, counts = np.array([[sum(values), len(values)] for values in clusters]).T
    draws = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean=float(sums.sum() / counts.sum()), low=float(low), high=float(high))
