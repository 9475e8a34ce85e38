"""Which pair of images to show to a rater next: where the lam that people prefer is decided soonest.

Both lams come from the posterior, by top-two Thompson sampling (Russo 2016): the best lam of one draw, and the best of
the next draw that has another one. A share of pairs is shown to several raters, or again to the same one with its sides
swapped, to see how far they agree with each other and with themselves.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from deradiff.analysis.votes import VoteFit, fit_votes
from deradiff.errors import ResultsError
from deradiff.results import Results
from deradiff.votes import Vote

SHARED = 0.15  # of pairs are shown to several raters
REPEATED = 0.05  # of pairs are shown again to the same rater


class Pair(NamedTuple):
    """Two images to compare, of the same prompt and noise; the sides are drawn at random."""

    prompt: str
    seed: int
    left: float
    right: float

    @property
    def images(self) -> tuple[str, int, float, float]:
        """Which images they are, whatever their sides."""
        return self.prompt, self.seed, min(self.left, self.right), max(self.left, self.right)

    @property
    def swapped(self) -> "Pair":
        """The same with its sides swapped."""
        return self._replace(left=self.right, right=self.left)


def next_pair(
    results: Results,
    votes: Sequence[Vote],
    rater: str,
    *,
    pending: Sequence[Pair] = (),
    seed: int = 0,
    fit: VoteFit | None = None,
) -> Pair | None:
    """The pair to show to a rater next; None where this rater has judged every pair. Deterministic.

    Args:
        results: the table of the run at one guidance, with its image files.
        votes: all so far, at that guidance.
        rater: who is asked.
        pending: pairs that are on other raters' screens, and not voted on yet.
        seed: another one gives other pairs.
        fit: of these votes or of all but the last few, where it is at hand: a fit takes a second or two of 400 votes.

    Raises:
        ResultsError: fewer than two lams have images of the same prompt and seed, or a vote is on an unknown lam.
    """
    there = np.array(results.images != "", bool)
    if not (there.sum(axis=2) >= 2).any():
        raise ResultsError("no two images of one prompt and seed at different lams: nothing to compare; sweep more")
    rng = np.random.default_rng(_digest(seed, rater, len(votes), len(pending)))
    own_votes = [vote for vote in votes if vote.rater == rater]
    kind = rng.random()
    if kind < REPEATED and (pair := _to_repeat(own_votes, rng)):
        return pair
    if kind > 1 - SHARED and (pair := _to_share(votes, own_votes, pending, rng)):
        return pair
    fit = fit_votes(votes, results.lams) if fit is None else fit
    return _new_pair(results, there, votes, own_votes, pending, fit, rng)


def _new_pair(
    results: Results,
    there: np.ndarray,
    votes: Sequence[Vote],
    own_votes: Sequence[Vote],
    pending: Sequence[Pair],
    fit: VoteFit,
    rng: np.random.Generator,
) -> Pair | None:
    """The two lams by top-two Thompson sampling, at the prompt and seed that were judged least."""
    judged = {as_pair(vote).images for vote in own_votes}
    shown = Counter(pair.images for pair in [*map(as_pair, votes), *pending])
    prompts, cells = Counter(), Counter()
    for images, count in shown.items():
        prompts[images[0]] += count
        cells[images[:2]] += count
    order = _by_preference(fit, rng)
    for first, second in order:
        low, high = sorted((results.lams[first], results.lams[second]))
        open_cells = [
            (results.prompts[p], results.seeds[s])
            for p, s in np.argwhere(there[:, :, first] & there[:, :, second]).tolist()
            if (results.prompts[p], results.seeds[s], low, high) not in judged
        ]
        if open_cells:

            def rank(cell: tuple[str, int], low: float = low, high: float = high) -> tuple[int, int, int]:
                return shown[(*cell, low, high)], prompts[cell[0]], cells[cell]

            least = min(map(rank, open_cells))
            candidates = [cell for cell in open_cells if rank(cell) == least]
            prompt, seed = candidates[int(rng.integers(len(candidates)))]
            return _on_random_sides(Pair(prompt, seed, low, high), rng)
    return None


def _by_preference(fit: VoteFit, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs of lams by index: that of two draws from the posterior first, then all others at random."""
    winners = rng.permutation(fit.samples).argmax(axis=1)
    first = int(winners[0])
    others = winners[winners != first]
    if len(others):
        second = int(others[0])
    else:
        second = int(np.argsort(-fit.mean)[1]) if first == fit.best_index else fit.best_index
    count = len(fit.lams)
    rest = [(a, b) for a in range(count) for b in range(a + 1, count)]
    rng.shuffle(rest)
    return [(first, second), *(pair for pair in rest if set(pair) != {first, second})]


def _to_share(
    votes: Sequence[Vote], own_votes: Sequence[Vote], pending: Sequence[Pair], rng: np.random.Generator
) -> Pair | None:
    """A pair that others judged and this rater didn't; those of the fewest raters first."""
    judged = {as_pair(vote).images for vote in own_votes} | {pair.images for pair in pending}
    raters: dict[tuple[str, int, float, float], set[str]] = {}
    for vote in votes:
        raters.setdefault(as_pair(vote).images, set()).add(vote.rater)
    open_pairs = [images for images in raters if images not in judged]
    if not open_pairs:
        return None
    most = max(len(raters[images]) for images in open_pairs)
    candidates = [images for images in open_pairs if len(raters[images]) == most]
    return _on_random_sides(Pair(*candidates[int(rng.integers(len(candidates)))]), rng)


def _to_repeat(own_votes: Sequence[Vote], rng: np.random.Generator) -> Pair | None:
    """One of the earlier half of a rater's pairs, which was judged once, with its sides swapped."""
    counts = Counter(as_pair(vote).images for vote in own_votes)
    once = [vote for vote in own_votes[: len(own_votes) // 2] if counts[as_pair(vote).images] == 1]
    return as_pair(once[int(rng.integers(len(once)))]).swapped if once else None


def _on_random_sides(pair: Pair, rng: np.random.Generator) -> Pair:
    return pair.swapped if rng.random() < 0.5 else pair


def as_pair(vote: Vote) -> Pair:
    """The pair that was voted on."""
    return Pair(vote.prompt, vote.seed, vote.left, vote.right)


def _digest(*values: object) -> int:
    return int.from_bytes(blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
