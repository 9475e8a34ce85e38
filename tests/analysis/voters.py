"""People whose utility along lam is known, and their votes."""

from collections.abc import Sequence

import numpy as np

from deradiff.analysis.davidson import win_share
from deradiff.votes import Vote

LAMS = (0.0, 0.5, 1.0, 1.5, 2.0)
PEAK = (-1.0, 0.5, 1.5, 0.0, -2.0)  # utility at each, in logits


def votes_of(
    count: int,
    utility: Sequence[float] = PEAK,
    *,
    lams: Sequence[float] = LAMS,
    tie: float = 0.5,
    prompts: int = 20,
    raters: int = 2,
    seed: int = 0,
) -> list[Vote]:
    """Votes on pairs of lams drawn at random, with outcomes drawn from Davidson's model."""
    rng, votes = np.random.default_rng(seed), []
    for number in range(count):
        left, right = rng.choice(len(lams), 2, replace=False)
        win = float(win_share(np.array(utility[left] - utility[right]), tie))
        ties = tie / (2 * np.cosh((utility[left] - utility[right]) / 2) + tie)
        outcome = ("left", "right", "tie")[rng.choice(3, p=[win - ties / 2, 1 - win - ties / 2, ties])]
        votes.append(
            Vote(
                prompt=f"prompt {rng.integers(prompts)}",
                seed=int(rng.integers(2)),
                left=lams[left],
                right=lams[right],
                outcome=outcome,
                rater=f"rater {number % raters}",
            )
        )
    return votes
