"""The report of two runs, such as two anchors, on the prompts, seeds and lams that they share."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import escape

from deradiff.analysis.curves import paired_changes
from deradiff.analysis.statistics import Interval, intervals
from deradiff.errors import ResultsError
from deradiff.report import figures
from deradiff.report.data import as_script, explorer_data, strip_contents
from deradiff.report.template import render
from deradiff.report.thumbnails import make_strips
from deradiff.results import Results
from deradiff.writing import write_whole

COLOURS = figures.MIXTURE, figures.ACCENT


def write_pair_report(
    runs: Mapping[str, Results],
    rewards: Sequence[str],
    path: Path,
    *,
    progress: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write one self-contained html page about two runs: images and scores side by side, and their difference.

    Args:
        runs: two runs by name.
        rewards: names of rewards that both runs have.
        path: the html file to write.
        progress: called with the number of images that were added to the page.

    Raises:
        ResultsError: the runs share nothing, one lacks a reward, or an image can't be read.
    """
    names, pair = list(runs), _on_shared_axes(runs)
    _check_scored(runs, rewards)
    first, strips = pair[0], make_strips(pair, progress=progress)
    tables = dict(zip(names, pair, strict=True))
    page = render(
        "pair.html",
        {
            "names": names,
            "lams": first.lams,
            "seeds": first.seeds,
            "count": len(first.prompts),
            "details": _details(runs),
            "tables": {reward: _differences(pair, reward) for reward in rewards},
            "curves": {reward: _curves(pair, names, reward).to_json() for reward in rewards},
            "data": as_script([explorer_data("", tables, strips, range(len(first.lams)), path.parent)]),
            "strips": as_script([strip_contents(strips)]),
        },
    )
    write_whole(path, page, ResultsError)
    return path


def _check_scored(runs: Mapping[str, Results], rewards: Sequence[str]) -> None:
    for name, results in runs.items():
        for reward in rewards:
            try:
                results.scored(reward)
            except ResultsError as error:
                raise ResultsError(f"{name}: {error}") from error


def _on_shared_axes(runs: Mapping[str, Results]) -> list[Results]:
    one, other = runs.values()
    prompts = [prompt for prompt in one.prompts if prompt in set(other.prompts)]
    seeds = [seed for seed in one.seeds if seed in set(other.seeds)]
    lams = [lam for lam in one.lams if lam in set(other.lams)]
    for what, axis in (("prompt", prompts), ("seed", seeds), ("lam", lams)):
        if not axis:
            raise ResultsError(f"{' and '.join(runs)} share no {what}; sweep one of them on the other's")
    return [results.on_axes(prompts, seeds, lams) for results in (one, other)]


def _differences(pair: list[Results], reward: str) -> list[tuple[float, float, float, Interval | None]]:
    """For each lam both means and the paired difference, second minus first, with prompts as clusters."""
    rows = []
    for index, lam in enumerate(pair[0].lams):
        scores = np.stack([results.scored(reward)[:, :, index] for results in pair], axis=-1)
        scores = np.where(np.isfinite(scores).all(axis=-1, keepdims=True), scores, np.nan)
        known = np.isfinite(scores[..., 0] + scores[..., 1]).any(axis=1)
        means = [float(np.nanmean(scores[..., at])) if known.any() else np.nan for at in (0, 1)]
        interval = None
        if known.sum() > 1:
            table = Results(
                prompts=np.array(pair[0].prompts)[known].tolist(),
                seeds=pair[0].seeds,
                lams=(0, 1),
                scores={reward: scores[known]},
                rewards=pair[0].rewards,
            )
            interval = intervals(paired_changes(table, reward)[[1]])[0]
        rows.append((lam, *means, interval))
    return rows


def _curves(pair: list[Results], names: list[str], reward: str) -> go.Figure:
    figure = figures.blank("lam", reward)
    drawn = [[_mean(results.scored(reward)[:, :, index]) for index in range(len(results.lams))] for results in pair]
    for results, name, colour, means in zip(pair, names, COLOURS, drawn, strict=True):
        figure.add_scatter(
            x=list(results.lams),
            y=means,
            name=str(escape(name)),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 9},
            hovertemplate="lam %{x}<br>%{y:.3g}",
        )
    figure.update_xaxes(range=figures.axis_range(pair[0].lams))
    figure.update_yaxes(range=figures.axis_range(mean for each in drawn for mean in each if mean is not None))
    figure.update_layout(meta={"cursor": {"lams": list(pair[0].lams), "x": list(pair[0].lams), "y": None}})
    return figure.update_layout(
        showlegend=True, margin_t=56, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    )


def _mean(values: Any) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _details(runs: Mapping[str, Results]) -> list[tuple[str, list[str], bool]]:
    """The settings of each run, and whether the runs differ in them."""
    betas = {
        name: "unknown" if results.anchor_beta is None else f"{results.anchor_beta:g}" for name, results in runs.items()
    }
    all_details = [{"Anchor's beta": betas[name], **results.details} for name, results in runs.items()]
    settings = dict.fromkeys(key for details in all_details for key in details)
    rows = [(key, [details.get(key, "") for details in all_details]) for key in settings]
    return [(key, values, len(set(values)) > 1) for key, values in rows]
