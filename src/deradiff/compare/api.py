"""A complete comparison: runs, ``results.json`` and ``compare.html``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deradiff.compare.outcome import Table, as_json
from deradiff.compare.page import render
from deradiff.compare.run import Runs
from deradiff.compare.settings import Comparison
from deradiff.compare.tables import tables
from deradiff.rewards import reward_name
from deradiff.runs.run import Progress
from deradiff.writing import locked, write_whole


def compare(
    folder: Path,
    comparison: Comparison,
    pipe: Any,
    rewards: Sequence[str],
    locate: Callable[[str], str] = str,
    progress: Progress = lambda count: None,
) -> list[Table]:
    """Sample and score what is missing, then write the results.

    Args:
        folder: receives the runs, ``results.json`` and ``compare.html``; an interrupted comparison resumes.
        comparison: the settings.
        pipe: the reference pipeline, loaded; left as it was.
        rewards: names or ``module:function``, at least one; the first gives the headline.
        locate: maps a model's name to its folder or hub id.
        progress: receives the number of images sampled since its last call.

    Returns:
        A table for each anchor, scheduler and reward, in this order; rewards vary fastest.

    Raises:
        ConfigError: a setting that the pipeline doesn't support.
        RunFolderError: the folder holds another comparison, or the disk is full.
        RewardError: an unknown reward, or scores that aren't one finite number for each image.
    """
    runs = Runs(folder, comparison)
    runs.sample_and_score(pipe, rewards, locate, progress)
    outcome = list(tables(runs, list(map(reward_name, rewards))))
    with locked(folder / ".compare.lock"):
        write_whole(folder / "results.json", (json.dumps(as_json(outcome), indent=1) + "\n").encode())
        write_whole(folder / "compare.html", render(outcome, _facts(comparison)))
    return outcome


def _facts(comparison: Comparison) -> dict[str, str]:
    recipe, request = comparison.recipe, comparison.request
    return {
        "Model": recipe.model,
        "Anchors": ", ".join(f"{anchor.name} (beta {anchor.beta:g})" for anchor in comparison.anchors),
        "Retrained": f"{len(comparison.retrained)} models at beta {', '.join(f'{b:g}' for b in comparison.betas)}",
        "Images in each arm": f"{len(request.prompts)} prompts × {len(request.seeds)} seeds",
        "Schedulers": ", ".join(scheduler or "the pipeline's own" for scheduler in comparison.schedulers),
        "Steps": str(recipe.steps),
        "Guidance": "the pipeline's default" if request.guidances[0] is None else f"{request.guidances[0]:g}",
        "Convention of beta": "; ".join(f"{k}: {v}" for k, v in comparison.anchors[0].convention.items()),
    }
