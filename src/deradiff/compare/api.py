"""A comparison from beginning to end: runs, ``results.json`` and ``compare.html``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deradiff.compare.outcome import Table, as_json
from deradiff.compare.page import render
from deradiff.compare.run import Runs
from deradiff.compare.settings import Comparison
from deradiff.compare.tables import tables
from deradiff.io import locked, write_whole
from deradiff.runs.run import Progress


def compare(
    folder: Path,
    comparison: Comparison,
    pipe: Any,
    rewards: Sequence[str],
    locate: Callable[[str], str] = str,
    progress: Progress = lambda count: None,
) -> list[Table]:
    """Sample and score what is missing, then write what was found.

    Args:
        folder: holds the runs, ``results.json`` and ``compare.html``; an interrupted comparison goes on there.
        comparison: what to compare.
        pipe: the reference pipeline, loaded; left as it was.
        rewards: names or ``module:function``, at least one; the first gives the headline.
        locate: from a model's name to its folder or hub id.
        progress: told how many more images are sampled.

    Returns:
        A table for each anchor, scheduler and reward, in the order given, rewards turning fastest.

    Raises:
        ConfigError: another comparison in the folder, a setting the pipeline doesn't take, or no room.
        RewardError: no such reward, or scores that aren't one finite number an image.
    """
    runs = Runs(folder, comparison)
    runs.make(pipe, rewards, locate, progress)
    found = list(tables(runs, rewards))
    with locked(folder / ".compare.lock"):
        write_whole(folder / "results.json", (json.dumps(as_json(found), indent=1) + "\n").encode())
        write_whole(folder / "compare.html", render(found, _facts(comparison)).encode())
    return found


def _facts(comparison: Comparison) -> dict[str, str]:
    recipe, request = comparison.recipe, comparison.request
    return {
        "Model": recipe.model,
        "Anchors": ", ".join(f"{anchor.name} (beta {anchor.beta:g})" for anchor in comparison.anchors),
        "From scratch": f"{len(comparison.scratch)} models at beta {', '.join(f'{b:g}' for b in comparison.betas)}",
        "Images an arm": f"{len(request.prompts)} prompts × {len(request.seeds)} seeds",
        "Schedulers": ", ".join(scheduler or "the pipeline's own" for scheduler in comparison.schedulers),
        "Steps": str(recipe.steps),
        "Guidance": "the pipeline's default" if request.guidances[0] is None else f"{request.guidances[0]:g}",
        "Convention of beta": "; ".join(f"{k}: {v}" for k, v in comparison.anchors[0].convention.items()),
    }
