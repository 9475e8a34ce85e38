"""The answer that what was sampled gives: the lam, and where sampling everything could still move it to."""

from dataclasses import dataclass

import numpy as np

from deradiff.errors import ResultsError
from deradiff.recommend import Recommendation, recommend, taken
from deradiff.results import Results
from deradiff.search.observed import Floats, Observed
from deradiff.search.settings import Settings

QUANTILES = 0.1, 0.9, 0.025, 0.975
DRAWS = 200  # of the tables that sampling everything could give


@dataclass(frozen=True)
class Answer:
    """What a search says of its grid.

    Attributes:
        table: the whole grid, of which most was filled in, for the prompts in use.
        choice: chosen on it.
        interval: lams that the whole grid, with all prompts and seeds, would choose between in 95 % of
            what it could turn out to be. That of ``choice`` is wider: it is for other prompts like these.
        spread: places of the 10, 90, 2.5 and 97.5 % quantiles of that.
    """

    table: Results
    choice: Recommendation
    interval: tuple[float, float]
    spread: tuple[int, ...]


def answered(seen: Observed, settings: Settings, like: Results) -> Answer:
    """Fill in the grid, and choose.

    Args:
        seen: what was sampled.
        settings: the question.
        like: any round, for what all rounds have in common.

    Raises:
        ResultsError: a reward that not all rounds are scored with, or as ``recommend``.
    """
    from deradiff.search.fill import filled  # takes a second, which whoever asks for something else shouldn't wait

    grid, question = settings.grid, settings.question
    if missing := [name for name in question.rewards if name not in seen.tables]:
        there = ", ".join(name for name in seen.tables if name != "path_kl") or "none"
        raise ResultsError(
            f"not every round of the search is scored with {missing[0]!r}, but with: {there}; choose one of these, or "
            f"deradiff score the search with --rewards {missing[0]}"
        )
    names = [name for name in seen.tables if name != "path_kl" or question.kl_budget is not None]
    tables = {name: filled(seen, name, DRAWS) for name in names}
    whole = _results(grid, like, {name: own.table for name, own in tables.items()})
    choice = recommend(whole, objective=settings.objective, guard=settings.guard, kl_budget=settings.kl_budget)
    drawn = (_results(grid, like, {name: own.drawn[number] for name, own in tables.items()}) for number in range(DRAWS))
    places = [taken(own, question) for own in drawn]
    spread = tuple(int(place) for place in np.quantile(places, QUANTILES, method="inverted_cdf"))
    low, high = (grid[place] for place in spread[2:])
    interval = min(low, choice.lam), max(high, choice.lam)
    return Answer(whole, choice, interval, spread)


def _results(grid: tuple[float, ...], like: Results, tables: dict[str, Floats]) -> Results:
    """A table (P, 1, G) of the prompts in use."""
    scores = {name: table[:, None] for name, table in tables.items()}
    path_kl = scores.pop("path_kl", None)
    prompts = len(next(iter(tables.values())))
    return Results(
        prompts=tuple(map(str, range(prompts))),
        seeds=(0,),
        lams=grid,
        scores=scores,
        images=np.full((prompts, 1, len(grid)), "", dtype=object),
        path_kl=path_kl,
        better=like.better,
        anchor_beta=like.anchor_beta,
    )
