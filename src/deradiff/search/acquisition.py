"""What to sample next: lams at which the answer could still lie, then more prompts and seeds around it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

NEAR = 1  # steps of the grid within which a sampled lam stands for the answer
WIDEST_GAP = 0.25  # share of the range between sampled lams up to which a search may stop
FIRST_PROMPTS = 32  # of the initial design; more join where they decide most


class SampleBlock(NamedTuple):
    """Some prompts and seeds at some lams, all by index: what one round samples."""

    prompts: range
    seeds: range
    lams: tuple[int, ...]

    @property
    def images(self) -> int:
        """How many images."""
        return len(self.prompts) * len(self.seeds) * len(self.lams)


Acquisition = Callable[[Bools, Sequence[float], int, Sequence[int]], SampleBlock | None]  # as `next_block`


def initial_design(prompts: int, lams: Sequence[float]) -> SampleBlock:
    """What a search begins with: one seed of the first prompts at lam = 0, the middle and the end of the grid."""
    middle = int(np.abs(np.asarray(lams) - lams[-1] / 2).argmin())
    return SampleBlock(range(min(prompts, FIRST_PROMPTS)), range(1), (0, middle, len(lams) - 1))


def next_block(known: Bools, lams: Sequence[float], best: int, spread: Sequence[int]) -> SampleBlock | None:
    """What decides most for the answer; None where all around it is sampled.

    First a lam no further than `NEAR` from the answer, for all prompts in use. Then a second seed, as one shows nothing
    of the noise; lams near each index of ``spread``, to which the answer could still move; and a lam in the middle of
    each gap wider than `WIDEST_GAP`. Then more prompts, or once all are in use another seed, at lam = 0 and the two
    sampled lams nearest to the answer. Last these two for whatever lacks them.

    Args:
        known: whether each image is sampled, (P, S, G).
        lams: G, ascending from 0.
        best: index of the answer.
        spread: indices that the answer could move to, the likelier first: a low one, a high one, and so on.
    """
    prompts, seeds = (int(known.any(axis=axes).sum()) for axes in ((1, 2), (0, 2)))
    sampled: list[int] = np.flatnonzero(known.any(axis=(0, 1))).tolist()
    if not is_sampled_near(known, best):
        return SampleBlock(range(prompts), range(seeds), (best,))
    nearest = tuple(sorted(sorted(filter(None, sampled), key=lambda lam: (abs(lams[lam] - lams[best]), lam))[:2]))
    if seeds == 1 < known.shape[1]:
        return SampleBlock(range(prompts), range(1, 2), (0, *nearest))
    for lam in spread:
        if not is_sampled_near(known, lam):
            return SampleBlock(range(prompts), range(1), (lam,))
    if (gap := widest_gap(known, lams)) is not None:
        return SampleBlock(range(prompts), range(1), (gap,))
    if prompts < len(known):
        return SampleBlock(range(prompts, min(2 * prompts, len(known))), range(seeds), (0, *nearest))
    if seeds < known.shape[1]:
        return SampleBlock(range(prompts), range(seeds, seeds + 1), (0, *nearest))
    lacking = (SampleBlock(*pair, (lam,)) for lam in nearest if (pair := _first_lacking(known[:, :, lam])) is not None)
    return next(lacking, None)


def cut_to_budget(block: SampleBlock, images: int) -> SampleBlock | None:
    """The block, or its first prompts, of no more images than that; None where less than a quarter would remain."""
    prompts = images // (len(block.seeds) * len(block.lams))
    if prompts >= len(block.prompts):
        return block
    return block._replace(prompts=block.prompts[:prompts]) if prompts >= len(block.prompts) / 4 else None


def is_sampled_near(known: Bools, lam: int) -> bool:
    """Whether a lam of the grid is 0, or is or is next to another one that was sampled."""
    lams = np.flatnonzero(known.any(axis=(0, 1)))
    return lam == 0 or int(np.abs(lams[lams > 0] - lam).min()) <= NEAR


def widest_gap(known: Bools, lams: Sequence[float]) -> int | None:
    """The middle of the widest gap between sampled lams; None where none is wider than `WIDEST_GAP` of the range."""
    sampled: list[float] = [lams[index] for index in np.flatnonzero(known.any(axis=(0, 1))).tolist()]
    low, high = max(pairwise(sampled), key=lambda pair: pair[1] - pair[0])
    if high - low <= WIDEST_GAP * lams[-1] * (1 + 1e-9):
        return None
    return int(np.abs(np.asarray(lams) - (low + high) / 2).argmin())


def without_reference(known: Bools) -> SampleBlock | None:
    """Pairs that were sampled at some lam and lack lam = 0, without which they have no change."""
    pair = _first_lacking(known[:, :, 0] | ~known.any(axis=2))
    return None if pair is None else SampleBlock(*pair, (0,))


def _first_lacking(known: Bools) -> tuple[range, range] | None:
    """The first run of prompts that lack a seed, of (P, S), and that seed."""
    seeds = np.flatnonzero(~known.all(axis=0))
    if not len(seeds):
        return None
    seed = int(seeds[0])
    has = known[:, seed].tolist()
    first = has.index(False)
    last = has.index(True, first) if True in has[first:] else len(has)
    return range(first, last), range(seed, seed + 1)
