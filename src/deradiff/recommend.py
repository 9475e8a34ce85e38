"""Which lam to take: the largest objective among the lams at which the guard reward holds.

Images of one prompt are alike, so prompts are the clusters: every interval and test is a Student t over the
prompts' means (over seeds). A change to the reference is taken within one (prompt, seed), whose images share
all noise. Intervals are two-sided at 95 %; the guard drops where a one-sided paired t test at 5 % finds it
below lam = 0. Neither is corrected for looking at several lams, nor the gain for being the largest of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log10

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from deradiff.errors import ResultsError
from deradiff.results import Results

FEW_PROMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over prompts and its confidence limits, in the units of the reward."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = self.figures
        return f"{mean} (95 % interval {low} to {high})"

    @property
    def figures(self) -> tuple[str, str, str]:
        """Mean, low and high in words, signed, with the digits that the width of the interval supports."""
        width = self.high - self.low
        decimals = min(max(2 - ceil(log10(width)), 0), 6) if width > 0 else 3
        mean, low, high = (f"{value:+.{decimals}f}" for value in (self.mean, self.low, self.high))
        return mean, low, high


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One reward along lam, with 95 % intervals clustered by prompt.

    Attributes:
        reward: name of the reward.
        lams: L mixing weights, ascending.
        score: the mean score at each lam; its interval holds the spread between prompts.
        change: the paired difference to lam = 0 at each lam.
        drops: whether the score at each lam is significantly below the reference, one-sided at 5 %.
    """

    reward: str
    lams: tuple[float, ...]
    score: tuple[Interval, ...]
    change: tuple[Interval, ...]
    drops: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The lam to take and why.

    Attributes:
        lam: the recommended mixing weight.
        beta: the KL strength it stands for, anchor_beta / lam; None for lam <= 0 or an unknown anchor_beta.
        reason: one to three sentences with the figures.
        objective_gain: paired change of the objective from the reference to ``lam``.
        guard_change: the same of the guard, or None without a guard.
        warnings: what a reader should know before trusting the choice.
    """

    lam: float
    beta: float | None
    reason: str
    objective_gain: Interval
    guard_change: Interval | None
    warnings: tuple[str, ...]


def recommend(results: Results, *, objective: str, guard: str | None = None) -> Recommendation:
    """The lam of the largest mean objective at which the guard is not significantly below the reference.

    Args:
        results: a sweep with lam = 0 among its lams.
        objective: name of the reward to raise.
        guard: name of the reward that must not fall; None guards nothing.

    Raises:
        ResultsError: an unknown reward, lam = 0 missing, a single lam or prompt, an objective that never
            changes, or a guard that is the objective.
    """
    if guard == objective:
        raise ResultsError(f"guard and objective are both {objective!r}; name another reward as guard, or none")
    raised = paired_curve(results, objective)
    guarded = None if guard is None else paired_curve(results, guard)
    if np.ptp(results.scores[objective]) == 0:
        raise ResultsError(f"{objective}: all scores are equal, so no lam is better; choose another objective")
    allowed = [i for i in range(len(results.lams)) if guarded is None or not guarded.drops[i]]
    best = max(allowed, key=lambda i: raised.change[i].mean)
    return Recommendation(
        lam=results.lams[best],
        beta=equivalent_beta(results, results.lams[best]),
        reason=" ".join(_reason(raised, guarded, best, prompts=len(results.prompts))),
        objective_gain=raised.change[best],
        guard_change=None if guarded is None else guarded.change[best],
        warnings=tuple(_warnings(raised, guarded, best, prompts=len(results.prompts))),
    )


def paired_curve(results: Results, reward: str) -> Curve:
    """Mean score and paired change to lam = 0 along lam, clustered by prompt.

    Raises:
        ResultsError: an unknown reward, lam = 0 missing, or a single lam or prompt.
    """
    lams = results.lams
    if reward not in results.scores:
        raise ResultsError(
            f"no reward {reward!r} here; there are: {', '.join(results.scores) or 'none; run deradiff score'}"
        )
    if len(lams) < 2:
        raise ResultsError(f"one lam only, {lams}: nothing to compare; sweep lam = 0 and at least one other")
    if 0 not in lams:
        raise ResultsError(f"the reference, lam = 0, is not among the lams {lams}; sweep it too")
    if len(results.prompts) < 2:
        raise ResultsError("one prompt only: intervals need the spread between prompts; sweep two or more")
    scores = results.scores[reward]
    changes = scores - scores[:, :, [lams.index(0)]]
    columns = range(len(lams))
    return Curve(
        reward=reward,
        lams=lams,
        score=tuple(interval(scores[:, :, i]) for i in columns),
        change=tuple(interval(changes[:, :, i]) for i in columns),
        # A two-sided 90 % interval wholly below 0 is a one-sided t test that rejects at 5 %.
        drops=tuple(interval(changes[:, :, i], level=0.90).high < 0 for i in columns),
    )


def equivalent_beta(results: Results, lam: float) -> float | None:
    """The KL strength lam stands for, anchor_beta / lam; None for lam <= 0 or an unknown anchor_beta."""
    return results.anchor_beta / lam if results.anchor_beta is not None and lam > 0 else None


def interval(values: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Student t interval of the mean over P >= 2 prompts, from values (P, S)."""
    means = values.mean(axis=1)
    mean = float(means.mean())
    quantile = stdtrit(len(means) - 1, (1 + level) / 2)
    half = float(quantile * means.std(ddof=1) / np.sqrt(len(means)))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def _reason(objective: Curve, guard: Curve | None, best: int, *, prompts: int) -> Iterator[str]:
    lam, gain = objective.lams[best], objective.change[best]
    among = "among all lams swept"
    if guard is not None:
        test = f"paired t test over {prompts} prompts, one-sided 5 %"
        among = f"among the lams at which {guard.reward} is not significantly below the reference ({test})"
    if lam == 0:
        yield f"No lam raises {objective.reward} {among}: stay with the reference, lam = 0."
    else:
        yield f"lam = {lam:g} raises {objective.reward} most, by {gain}, {among}."
    if guard is None:
        return
    if lam != 0:
        yield f"There {guard.reward} changes by {guard.change[best]}."
    hacked = [
        lam
        for lam, change, drops in zip(objective.lams, objective.change, guard.drops, strict=True)
        if drops and change.low > 0 and change.mean > gain.mean
    ]
    if hacked:
        fall = f"{objective.reward} is higher still while {guard.reward} is significantly below the reference"
        yield f"From lam = {hacked[0]:g}, {fall}: this is reward hacking."


def _warnings(objective: Curve, guard: Curve | None, best: int, *, prompts: int) -> Iterator[str]:
    lam = objective.lams[best]
    if prompts < FEW_PROMPTS:
        yield f"Only {prompts} prompts: the intervals are wide, and other prompts may behave differently."
    if best == len(objective.lams) - 1:
        yield f"lam = {lam:g} is the largest lam swept: a better one may lie above it, so sweep further."
    if best == 0 and lam != 0:
        yield f"lam = {lam:g} is the smallest lam swept: a better one may lie below it, so sweep further."
    if lam > 1:
        yield (
            f"lam = {lam:g} extrapolates beyond the anchor, which nothing bounds or corrects: an anchor of smaller "
            "beta at a lam below 1, with particles, is the surer way there."
        )
    if lam < 0:
        yield f"lam = {lam:g} moves away from the anchor, which is the opposite of aligning to it."
    if lam != 0 and objective.change[best].low <= 0:
        yield f"The gain in {objective.reward} is not significant: sweep more prompts."
    if guard is None:
        yield f"No guard reward: nothing here would show that {objective.reward} is hacked."
        return
    if not any(guard.drops):
        yield f"{guard.reward} never drops significantly: this sweep does not show where it would turn."
    if dropped := [lam for lam, drops in zip(guard.lams[:best], guard.drops, strict=False) if drops]:
        yield f"{guard.reward} drops at lam = {dropped[0]:g}, below the recommended one: look at its curve."
