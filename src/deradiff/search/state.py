"""The state of a search in a run folder, and the answer of a searched run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from deradiff.analysis.criteria import Criteria
from deradiff.errors import RunFolderError
from deradiff.reading import exists, read_model
from deradiff.results import Results
from deradiff.search.search import SearchResult, estimate_lam, search_result
from deradiff.search.settings import make_grid
from deradiff.validation import Seed, ValidatedModel
from deradiff.writing import write_whole

NAME = "search.json"
SCHEMA = 1


class SearchState(ValidatedModel):
    """``search.json``: that a run was searched, and how far.

    Attributes:
        schema_version: of this file.
        max_lam: the largest lam looked at.
        prompts: in the order in which the search takes them.
        seeds: likewise.
    """

    schema_version: int = SCHEMA
    max_lam: float = Field(gt=0, allow_inf_nan=False)
    prompts: tuple[str, ...]
    seeds: tuple[Seed, ...]


def read_state(folder: Path) -> SearchState | None:
    """The state that the last search of a run wrote; None where it was never searched.

    Raises:
        RunFolderError: the file is damaged, or of a newer version.
    """
    path = folder / NAME
    if not exists(path, "the search file"):
        return None
    state = read_model(SearchState, path, "the search file", "delete it, and search again", inside=folder)
    if state.schema_version != SCHEMA:
        raise RunFolderError(
            f"{path} has schema {state.schema_version}; this version reads {SCHEMA}: install a newer deradiff"
        )
    return state


def write_state(folder: Path, state: SearchState) -> None:
    """Write the state of a search.

    Raises:
        RunFolderError: it can't be written.
    """
    write_whole(folder / NAME, json.dumps(state.model_dump()).encode() + b"\n")


def answer_searched(results: Results, state: SearchState, criteria: Criteria) -> SearchResult:
    """The answer of a surrogate fitted to a run's scores; nothing is sampled.

    Raises:
        ResultsError: what was sampled can't answer the question.
    """
    within = [index for index, lam in enumerate(results.lams) if 0 <= lam <= state.max_lam]
    table = results.scored(criteria.objectives[0])[:, :, within]
    others = [prompt for prompt, rows in zip(results.prompts, table, strict=True) if np.isfinite(rows).any()]
    gaps = {prompt for name in criteria.rewards for prompt in results.unscored_prompts(name)}
    prompts = [prompt for prompt in dict.fromkeys([*state.prompts, *others]) if prompt not in gaps]
    seeds = list(dict.fromkeys([*state.seeds, *results.seeds]))
    lams = make_grid(state.max_lam, results.lams)
    known = results.on_axes(prompts, seeds, lams, _complete(results, criteria))
    result = search_result(known, criteria, estimate_lam(known, criteria), "")
    skipped = (*map(results.missing_scores_message, results.unscored), *results.unscored_prompts_messages())
    return replace(result, recommendation=replace(result.recommendation, skipped_rewards=skipped))


def _complete(results: Results, criteria: Criteria) -> list[str]:
    """The rewards of the criteria, and others that are scored for the same images."""
    names = list(criteria.rewards)
    scored = np.all([np.isfinite(results.scored(name)) for name in names], axis=0)
    others = [name for name in results.scores if name not in names]
    return names + [name for name in others if np.array_equal(np.isfinite(results.scores[name]), scored)]
