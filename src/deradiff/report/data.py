"""What a page's script knows: the data of the tables and the strips of their pictures, as JSON."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from deradiff.analysis import messages
from deradiff.analysis.criteria import resolve_margin
from deradiff.analysis.recommend import Recommendation
from deradiff.errors import printable
from deradiff.report import figures
from deradiff.report.thumbnails import Strips
from deradiff.results import Results

_DIGITS = 4  # of scores


def as_script(content: Any) -> Markup:
    """A value as JSON for a ``<script>``: no text in it can end the script, or is markup."""
    return htmlsafe_json_dumps(_printable(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def explorer_data(
    name: str,
    runs: Mapping[str, Results],
    strips: Sequence[Strips],
    lams: Sequence[int],
    folder: Path,
    answer: Recommendation | None = None,
) -> dict[str, Any]:
    """One tab of a page: prompts, seeds and lams, and for each run its scores and pictures.

    Args:
        name: of the tab.
        runs: one or two, on the same axes, by name.
        strips: of each.
        lams: indices of those that are shown.
        folder: of the page; pictures in it are linked.
        answer: that the page shows, if any.
    """
    first = next(iter(runs.values()))
    scored = [reward for reward in first.scores if all(reward in results.scores for results in runs.values())]
    rewards = [*(answer.criteria.rewards if answer else []), *scored]
    rewards = [reward for reward in dict.fromkeys(rewards) if reward in scored]
    return {
        "name": name,
        "prompts": list(first.prompts[: max(each.n_embedded for each in strips)]),
        "seeds": list(first.seeds),
        "lams": [_lam(first, index, answer) for index in lams],
        "chosen": list(lams).index(answer.index) if answer else _nearest(first, lams, 1.0),
        "zero": next((column for column, index in enumerate(lams) if first.lams[index] == 0), 0),
        "rewards": [_reward(first, reward, answer) for reward in rewards],
        "curve": _curve(answer, lams),
        "runs": [
            _run(run_name, results, each, rewards, lams, folder)
            for (run_name, results), each in zip(runs.items(), strips, strict=True)
        ],
    }


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list | tuple) else value


def _nearest(results: Results, lams: Sequence[int], lam: float) -> int:
    """The column of the lam that is nearest to one."""
    return min(range(len(lams)), key=lambda column: abs(results.lams[lams[column]] - lam))


def _lam(results: Results, index: int, answer: Recommendation | None) -> dict[str, Any]:
    lam = results.lams[index]
    judged = answer is not None and bool(answer.constraints) and lam != 0
    return {
        "value": lam,
        "label": f"{lam:g}",
        "beta": figures.beta_labels(results, [lam])[0],
        "verdict": answer.verdicts[index] if answer is not None and judged else "",
        "reason": messages.verdict_reason(answer, index) if answer is not None and judged else "",
    }


def _reward(results: Results, reward: str, answer: Recommendation | None) -> dict[str, Any]:
    """A reward's name, what it is to the question, and how far a guard may fall."""
    if answer is None or reward not in answer.criteria.rewards:
        return {"name": reward, "role": "held out", "margin": None}
    if reward in answer.criteria.objectives:
        return {"name": reward, "role": "objective", "margin": None}
    guard = next(guard for guard in answer.criteria.guards if guard.reward == reward)
    margin = resolve_margin(results, guard)
    return {"name": reward, "role": "guard", "margin": margin.size, "both": margin.both}


def _curve(answer: Recommendation | None, lams: Sequence[int]) -> list[list[float | None]]:
    """Mean of the objective and the ends of its band at each lam that is shown."""
    if answer is None:
        return []
    curve = answer.curves[answer.criteria.objectives[0]]
    reference = curve.score[curve.lams.index(0)]
    return [
        _numbers([curve.score[index], reference + curve.band[index].low, reference + curve.band[index].high])
        for index in lams
    ]


def _run(
    name: str, results: Results, strips: Strips, rewards: Sequence[str], lams: Sequence[int], folder: Path
) -> dict[str, Any]:
    """A run's tables, flat, by prompt, seed and lam."""
    count = strips.n_embedded

    def flat(table: Any) -> Any:
        return table[:count][:, :, list(lams)].ravel()

    return {
        "name": name,
        "size": list(strips.size),
        "crisp": strips.is_crisp,
        "scores": {reward: _numbers(flat(results.scores[reward])) for reward in rewards},
        "kl": None if results.path_kl is None else _numbers(flat(results.path_kl)),
        "tiles": flat(strips.tiles).tolist(),
        "counts": (strips.tiles[:count].max(axis=2) + 1).ravel().tolist(),
        "distance": _numbers(flat(strips.distance)),
        "black": np.flatnonzero(flat(strips.is_black)).tolist(),
        "files": [_link(file, folder) for file in flat(results.images).tolist()],
        "command": results.command,
    }


def strip_contents(strips: Sequence[Strips]) -> list[list[str]]:
    """The strips of a tab's runs, flat, by prompt and seed."""
    return [each.content[: each.n_embedded].ravel().tolist() for each in strips]


def _numbers(values: Any) -> list[float | None]:
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values]


def _link(file: object, folder: Path) -> str:
    """A picture's url relative to the page; empty where there is none, or it lies elsewhere."""
    if not file:
        return ""
    relative = os.path.relpath(str(file), folder)
    return "" if relative.startswith("..") or os.path.isabs(relative) else quote(relative.replace(os.sep, "/"))
