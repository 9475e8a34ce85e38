"""Is the grid of lams fine and wide enough, and which lams to sample next where it isn't."""

from collections.abc import Sequence

from deradiff.analysis.curves import Curve

FINE = 0.1  # steps up to this need no refinement
LARGEST = 2.0  # lam that is suggested: beyond the anchor, lam = 1, nothing bounds or corrects the extrapolation
START = (0.5, 1.0)  # suggested where no lam above 0 was swept


def suggest_lams(objectives: Sequence[Curve], shown: Sequence[bool], best: int) -> list[float]:
    """Lams to add: beyond the largest where that is the choice, or in the middle of wide steps that it could be in.

    All are above 0, towards the anchor, and adding them again and again comes to an end.

    Args:
        objectives: curves of the rewards to raise.
        shown: for each lam whether all guards are shown to hold.
        best: index of the chosen lam.
    """
    lams = objectives[0].lams
    if lams[-1] <= 0:
        return list(START)
    if best == len(lams) - 1:
        step = max(lams[best] - max(lams[best - 1], 0), FINE)
        beyond = (round(lams[best] + step * count, 6) for count in (1, 2))
        return [lam for lam in beyond if lam <= LARGEST]
    sides = [side for side in (best - 1, best + 1) if side >= 0]
    wide = [side for side in sides if round(abs(lams[side] - lams[best]), 6) > FINE]
    between = (round((lams[side] + lams[best]) / 2, 6) for side in wide if _differs(objectives, shown, side, best))
    return [lam for lam in between if lam > 0]


def _differs(objectives: Sequence[Curve], shown: Sequence[bool], side: int, best: int) -> bool:
    """Whether the neighbour isn't shown to hold or differs by more than noise: only a finer grid tells what is between.

    A lam on the other side of 0 has no part in either.
    """
    if not shown[side]:
        return True
    return any(
        not curve.change[side].low <= curve.change[best].mean <= curve.change[side].high
        or not curve.change[best].low <= curve.change[side].mean <= curve.change[best].high
        for curve in objectives
    )
