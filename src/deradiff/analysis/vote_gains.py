"""Votes as an objective: what their fit says of the gain over lam = 0, and its curve along lam."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deradiff.analysis.criteria import Prefer
from deradiff.analysis.curves import Curve
from deradiff.analysis.gains import PromptTests
from deradiff.analysis.guards import Bools
from deradiff.analysis.limits import Floats
from deradiff.analysis.statistics import LEVEL, Interval
from deradiff.analysis.votes import VoteFit, credible_indices
from deradiff.votes import VOTES, Vote


@dataclass(frozen=True)
class VoteGains:
    """Gains in utility over the lam at index ``zero``, in logits, from the posterior of a fit."""

    fit: VoteFit
    zero: int

    @property
    def samples(self) -> Floats:
        """(N, L), gains drawn from the posterior."""
        return self.fit.samples - self.fit.samples[:, [self.zero]]

    @property
    def means(self) -> Floats:
        """As `deradiff.analysis.gains.Gains`."""
        return self.fit.mean - self.fit.mean[self.zero]

    @property
    def errors(self) -> Floats:
        """As `deradiff.analysis.gains.Gains`."""
        return self.fit.difference_errors(self.zero)

    def is_shown(self, index: int, rivals: Sequence[int], risk: float) -> bool:
        """As `deradiff.analysis.gains.Gains`."""
        return bool(self.limits([index], 1 - risk)[index].low > 0)

    def estimate(self, index: int, shown: Bools, zero: int, prefer: Prefer) -> Interval:
        """As `deradiff.analysis.gains.Gains`; the prior draws means together, which corrects them for choosing."""
        return self.limits([index], LEVEL)[index]

    def possible_best(self, shown: Bools, candidates: Sequence[int]) -> list[int]:
        """As `deradiff.analysis.gains.Gains`: the fewest of the lams shown that hold the best of these with 95%
        probability, and each other candidate that is better than all of these with 5% or more."""
        samples, among = self.samples, np.flatnonzero(shown)
        best = samples[:, among]
        winners = np.bincount(best.argmax(axis=1), minlength=len(among)) / len(samples)
        left = set(among[credible_indices(winners)].tolist())
        for index in set(candidates) - set(among.tolist()):
            if float(np.mean(samples[:, index] > best.max(axis=1))) >= 1 - LEVEL:
                left.add(index)
        return sorted(left)

    def prompt_tests(self, index: int, rivals: Sequence[int], risk: float) -> PromptTests | None:
        """As `deradiff.analysis.gains.Gains`: where votes don't show the gain, only more votes can."""
        return [] if self.is_shown(index, rivals, risk) else None

    def limits(self, together: Sequence[int], level: float) -> list[Interval]:
        """The gain at every lam, with limits that hold for some of them together with a probability of ``level``."""
        errors = self.errors
        scaled = np.abs(self.samples - self.means)[:, list(together)] / np.maximum(errors[list(together)], 1e-12)
        reach = float(np.quantile(scaled.max(axis=1, initial=0), level)) * errors
        return [
            Interval(mean=float(mean), low=float(mean - width), high=float(mean + width))
            for mean, width in zip(self.means, reach, strict=True)
        ]


def vote_curve(gains: VoteGains, votes: Sequence[Vote]) -> Curve:
    """The utility along lam, 0 at lam = 0, with win rates against the reference and the anchor.

    ``pairs`` is how many votes were given on each lam.
    """
    fit, lams = gains.fit, gains.fit.lams
    others = [index for index in range(len(lams)) if index != gains.zero]
    counts = Counter(lam for vote in votes for lam in vote.lams)
    return Curve(
        reward=VOTES,
        lams=lams,
        score=tuple(gains.means.tolist()),
        change=tuple(gains.limits([index], LEVEL)[index] for index in range(len(lams))),
        band=tuple(gains.limits(others, LEVEL)),
        pairs=tuple(counts[lam] for lam in lams),
        wins=fit.win_rates(lams[gains.zero]),
        wins_anchor=fit.win_rates(1.0) if 1.0 in lams else None,
    )
