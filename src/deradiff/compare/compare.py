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
from deradiff.sweep.run import Progress
from deradiff.sweep.writer import hold


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
        PlanError: another comparison in the folder, a setting the pipeline doesn't take, or no room.
        RewardError: no such reward, or scores that aren't one finite number an image.
    """
    runs = Runs(folder, comparison)
    runs.make(pipe, rewards, locate, progress)
    found = list(tables(runs, rewards))
    with hold(folder, "compare") as writer:
        writer.save(folder / "results.json", (json.dumps(as_json(found), indent=1) + "\n").encode())
        writer.save(folder / "compare.html", render(found, _facts(comparison)).encode())
    return found


def _facts(comparison: Comparison) -> dict[str, str]:
    plan = comparison.plan
    return {
        "Model": plan.model,
        "Anchors": ", ".join(f"{anchor.name} (beta {anchor.beta:g})" for anchor in comparison.anchors),
        "From scratch": f"{len(comparison.scratch)} models at beta {', '.join(f'{b:g}' for b in comparison.betas)}",
        "Images an arm": f"{len(plan.prompts)} prompts × {len(plan.seeds)} seeds",
        "Schedulers": ", ".join(scheduler or "the pipeline's own" for scheduler in comparison.schedulers),
        "Steps": str(plan.steps),
        "Guidance": "the pipeline's default" if plan.guidances[0] is None else f"{plan.guidances[0]:g}",
        "Convention of beta": "; ".join(f"{k}: {v}" for k, v in comparison.anchors[0].convention.items()),
    }
