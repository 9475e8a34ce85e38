"""What to sample next: a lam where the answer lies, then more prompts and seeds around it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deradiff.search.observed import Observed, Rectangle

NEAR = 1  # steps of the grid within which a sampled lam stands for the answer


def following(seen: Observed, best: int, spread: Sequence[int]) -> Rectangle | None:
    """What decides most for the answer at place ``best`` of the grid; None where all around it is sampled.

    First a lam no further than `NEAR` from the answer, for all that is in use. Then a second seed, as one tells nothing
    of the noise, and lams near each place of ``spread``, to which the answer could still move. Then more prompts, or
    once all are in use another seed, at lam = 0 and the two lams nearest the answer. Last these two for whatever lacks
    them.
    """
    known, (prompts, seeds) = seen.known, seen.used
    if not stands(seen, best):
        return Rectangle(range(prompts), range(seeds), (best,))
    nearest = tuple(sorted(sorted(filter(None, seen.lams), key=lambda lam: (abs(lam - best), lam))[:2]))
    if seeds == 1 < known.shape[1]:
        return Rectangle(range(prompts), range(1, 2), (0, *nearest))
    for place in spread:
        if not stands(seen, place):
            return Rectangle(range(prompts), range(1), (place,))
    if prompts < len(known):
        return Rectangle(range(prompts, min(2 * prompts, len(known))), range(seeds), (0, *nearest))
    if seeds < known.shape[1]:
        return Rectangle(range(prompts), range(seeds, seeds + 1), (0, *nearest))
    lacking = (Rectangle(*own, (lam,)) for lam in nearest if (own := _lacking(known[:, :, lam])) is not None)
    return next(lacking, None)


def stands(seen: Observed, best: int) -> bool:
    """Whether the answer at place ``best`` is lam = 0, or is or is next to another lam that was sampled."""
    return best == 0 or min(abs(lam - best) for lam in seen.lams if lam) <= NEAR


def _lacking(known: NDArray[np.bool_]) -> tuple[range, range] | None:
    """The first run of prompts that lack a seed, of (P, S), and that seed."""
    seeds = np.flatnonzero(~known.all(axis=0))
    if not len(seeds):
        return None
    seed = int(seeds[0])
    has = known[:, seed].tolist()
    first = has.index(False)
    last = has.index(True, first) if True in has[first:] else len(has)
    return range(first, last), range(seed, seed + 1)
