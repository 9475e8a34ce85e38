"""Is the grid of lams fine and wide enough, and which lams to sample next where it isn't."""

from collections.abc import Sequence

from deradiff.analysis.curves import Curve

FINE = 0.1  # steps up to this need no refinement


def suggest_lams(objectives: Sequence[Curve], shown: Sequence[bool], best: int) -> list[float]:
    """Lams to add: beyond the end that the choice sits on, or in the middle of wide steps that it could be in.

    Args:
        objectives: curves of what is raised.
        shown: for each lam whether all guards are shown to hold.
        best: index of the chosen lam.
    """
    lams = objectives[0].lams
    last = len(lams) - 1
    if best in (0, last) and lams[best] != 0:
        step = abs(lams[best] - lams[best - 1 if best else 1])
        ahead = 1 if best else -1
        return sorted(round(lams[best] + ahead * step * count, 6) for count in (1, 2))
    sides = [side for side in (best - 1, best + 1) if 0 <= side <= last]
    sides = [side for side in sides if round(abs(lams[side] - lams[best]), 6) > FINE]
    return [round((lams[side] + lams[best]) / 2, 6) for side in sides if _differs(objectives, shown, side, best)]


def _differs(objectives: Sequence[Curve], shown: Sequence[bool], side: int, best: int) -> bool:
    """Whether the neighbour differs by more than noise, so that only a finer grid could tell what lies between."""
    if not shown[side]:
        return True
    return any(
        not own.change[side].low <= own.change[best].mean <= own.change[side].high
        or not own.change[best].low <= own.change[side].mean <= own.change[best].high
        for own in objectives
    )
