"""The report of two runs, such as two anchors, on the prompts, seeds and lams that they share."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import escape

from deradiff.analysis.curves import paired_changes
from deradiff.analysis.statistics import Interval, intervals
from deradiff.errors import ResultsError
from deradiff.report import figures
from deradiff.report.page import MAX_IMAGES, EmbeddedImage, embed_image
from deradiff.report.template import render
from deradiff.results import Results
from deradiff.writing import write_whole

COLOURS = figures.MIXTURE, figures.ACCENT
Rows = list[tuple[str, list[list[EmbeddedImage | None]]]]


def write_pair_report(runs: Mapping[str, Results], rewards: Sequence[str], path: Path) -> Path:
    """Write one self-contained html page about two runs: images and scores side by side, and their difference.

    Args:
        runs: two runs by name.
        rewards: names of rewards that both runs have.
        path: the html file to write.

    Raises:
        ResultsError: the runs share nothing, one lacks a reward, or an image can't be read.
    """
    names, pair = list(runs), _on_shared_axes(runs)
    _check_scored(runs, rewards)
    first = pair[0]
    page = render(
        "pair.html",
        {
            "names": names,
            "lams": first.lams,
            "seeds": first.seeds,
            "prompts": list(_prompts(pair, names)),
            "count": len(first.prompts),
            "details": _details(runs),
            "tables": {reward: _differences(pair, reward) for reward in rewards},
            "curves": {reward: _curves(pair, names, reward).to_json() for reward in rewards},
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
    for results, name, colour in zip(pair, names, COLOURS, strict=True):
        means = [_mean(results.scored(reward)[:, :, index]) for index in range(len(results.lams))]
        figure.add_scatter(
            x=list(results.lams),
            y=means,
            name=str(escape(name)),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 9},
            hovertemplate="lam %{x}<br>%{y:.3g}",
        )
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})


def _mean(values: Any) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _prompts(
    pair: list[Results], names: list[str]
) -> Iterator[tuple[str, list[tuple[str, list[list[EmbeddedImage | None]]]]]]:
    """For each prompt its text and, for each run, its images by lam and seed; the first prompts if there are many."""
    most = max(1, MAX_IMAGES // (2 * len(pair[0].seeds) * len(pair[0].lams)))
    for prompt, text in enumerate(pair[0].prompts[:most]):
        rows: Rows = [
            (
                name,
                [
                    [embed_image(results, prompt, s, i) for s in range(len(results.seeds))]
                    for i in range(len(results.lams))
                ],
            )
            for results, name in zip(pair, names, strict=True)
        ]
        yield text, rows


def _details(runs: Mapping[str, Results]) -> list[tuple[str, list[str], bool]]:
    """The settings of each run, and whether the runs differ in them."""
    betas = {
        name: "unknown" if results.anchor_beta is None else f"{results.anchor_beta:g}" for name, results in runs.items()
    }
    all_details = [{"Anchor's beta": betas[name], **results.details} for name, results in runs.items()]
    settings = dict.fromkeys(key for details in all_details for key in details)
    rows = [(key, [details.get(key, "") for details in all_details]) for key in settings]
    return [(key, values, len(set(values)) > 1) for key, values in rows]
