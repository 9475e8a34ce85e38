"""The answer that what was sampled gives: the lam, and where sampling everything could still move it to."""

from dataclasses import dataclass, replace

import numpy as np

from deradiff.errors import ResultsError
from deradiff.recommend import Curve, Interval, Recommendation, alarms, recommend, taken, win_rate
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
    for name in question.objectives:
        if name in seen.tables and np.nanmin(seen.tables[name]) == np.nanmax(seen.tables[name]):
            raise ResultsError(
                f"{name}: all {seen.known.sum()} images sampled score the same, so no lam is better; give more prompts "
                "or seeds, or another objective"
            )
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
    choice = replace(
        choice,
        curves={name: _with_wins(curve, seen, seen.tables[name]) for name, curve in choice.curves.items()},
        alarms=tuple(alarms(_sampled(seen, grid, like), question.objectives, question.held)),
        next_lams=(),  # what to sample next is for the search to say
    )
    drawn = (_results(grid, like, {name: own.drawn[number] for name, own in tables.items()}) for number in range(DRAWS))
    places = [taken(own, question) for own in drawn]
    spread = tuple(int(place) for place in np.quantile(places, QUANTILES, method="inverted_cdf"))
    low, high = (grid[place] for place in spread[2:])
    interval = min(low, choice.lam), max(high, choice.lam)
    return Answer(whole, choice, interval, spread)


def _with_wins(curve: Curve, seen: Observed, scores: Floats) -> Curve:
    """Win rates where images were sampled: of a filled-in table they would be the curve's, and never tied."""
    wins = [_wins(scores, lam) if lam in seen.lams else None for lam in range(len(curve.lams))]
    return replace(curve, wins=tuple(wins), wins_anchor=None)


def _wins(scores: Floats, lam: int) -> Interval:
    known = np.isfinite(scores[:, :, lam])
    prompts = np.flatnonzero(known.any(axis=1))
    part = np.ix_(prompts, known[prompts].all(axis=0))
    return win_rate(scores[:, :, lam][part], scores[:, :, 0][part])


def _sampled(seen: Observed, grid: tuple[float, ...], like: Results) -> Results:
    """The prompts that have every sampled lam, at those lams: what an alarm may be raised on, nothing filled in."""
    everywhere = np.flatnonzero(np.all(seen.known[:, :, seen.lams].any(axis=1), axis=1))
    names = [name for name in seen.tables if name != "path_kl"]
    reference = {name: np.nanmean(seen.tables[name][everywhere][:, :, [0]], axis=1) for name in names}
    tables = {name: reference[name] + seen.prompt_means(name)[everywhere][:, seen.lams] for name in names}
    return _results(tuple(grid[lam] for lam in seen.lams), like, tables)


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
