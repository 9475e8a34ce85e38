"""One reward along lam: means, paired changes to the reference, win rates.

Images of one prompt are alike, so prompts are the clusters. A change is taken within one (prompt, seed), whose images
share all noise. Intervals are two-sided at 95 %.
"""

from dataclasses import dataclass

from deradiff.errors import ResultsError
from deradiff.recommend.flips import band
from deradiff.recommend.intervals import Floats, Interval, interval, win_rate
from deradiff.results import Results


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One reward along lam, with 95 % intervals clustered by prompt.

    Attributes:
        reward: name of the reward.
        lams: L mixing weights, ascending.
        score: the mean score at each lam; its interval holds the spread between prompts.
        change: the paired difference to lam = 0 at each lam.
        band: the same with limits that hold at all lams at once.
        wins: share of images above their pair at lam = 0, ties half, in [0, 1]; None at a lam that a search filled in.
        wins_anchor: the same against lam = 1; None where that wasn't swept.
    """

    reward: str
    lams: tuple[float, ...]
    score: tuple[Interval, ...]
    change: tuple[Interval, ...]
    band: tuple[Interval, ...]
    wins: tuple[Interval | None, ...]
    wins_anchor: tuple[Interval, ...] | None


def paired_curve(results: Results, reward: str) -> Curve:
    """Mean score, paired change to lam = 0 and win rates along lam, clustered by prompt.

    Raises:
        ResultsError: a reward that is unknown or scored in part, lam = 0 missing, or a single lam or prompt.
    """
    refuse_unanswerable(results, reward)
    lams, scores = results.lams, results.scores[reward]
    reference = scores[:, :, lams.index(0)]
    columns = [scores[:, :, place] for place in range(len(lams))]
    change = [interval(column - reference) for column in columns]
    halves = band(prompt_changes(results, reward))
    anchor = scores[:, :, lams.index(1)] if 1 in lams else None
    return Curve(
        reward=reward,
        lams=lams,
        score=tuple(interval(column) for column in columns),
        change=tuple(change),
        band=tuple(
            Interval(mean=own.mean, low=own.mean - float(half), high=own.mean + float(half))
            for own, half in zip(change, halves, strict=True)
        ),
        wins=tuple(win_rate(column, reference) for column in columns),
        wins_anchor=None if anchor is None else tuple(win_rate(column, anchor) for column in columns),
    )


def refuse_unanswerable(results: Results, reward: str) -> None:
    """Refuse a table that can't say how a reward changes.

    Raises:
        ResultsError: a reward that is unknown or scored in part, lam = 0 missing, or a single lam or prompt.
    """
    lams, swept = results.lams, ", ".join(f"{lam:g}" for lam in results.lams)
    results.scored(reward)  # refuses one that isn't there
    if len(lams) < 2:
        raise ResultsError(f"one lam only, {swept}: nothing to compare; sweep lam = 0 and others into a new folder")
    if 0 not in lams:
        raise ResultsError(
            f"the reference, lam = 0, is not among the lams {swept}; sweep it with them into a new folder"
        )
    if len(results.prompts) < 2:
        raise ResultsError(
            "one prompt only: intervals need the spread between prompts; sweep two or more into a new folder"
        )


def prompt_changes(results: Results, reward: str) -> Floats:
    """Each prompt's mean change to lam = 0 at each lam, (P, L)."""
    scores = results.scores[reward]
    return (scores - scores[:, :, [results.lams.index(0)]]).mean(axis=1)


def equivalent_beta(results: Results, lam: float) -> float | None:
    """The KL strength lam stands for, anchor_beta / lam; None for lam <= 0 or an unknown anchor_beta."""
    return results.anchor_beta / lam if results.anchor_beta is not None and lam > 0 else None
