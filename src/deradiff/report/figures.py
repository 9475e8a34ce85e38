"""The report's figures as plotly specs.

One sequential colour scale encodes lam in every figure. It runs by rank, since lams are dense near 0. Text and hover
boxes take their colours from the page's css, which has a light and a dark theme. Ranges and margins are fixed, so that
the page can place its cursor, for which ``layout.meta`` holds the path along lam (`follow_lam`).
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from deradiff.analysis.curves import Curve, equivalent_beta
from deradiff.analysis.reweight import LEAST_ESS, Reweighted
from deradiff.analysis.statistics import Interval
from deradiff.results import Results

ACCENT = "#d9622b"
MIXTURE = "#3f8fd2"
LINE = "rgba(128, 128, 128, 0.8)"
BAND = "rgba(128, 128, 128, 0.22)"
RULE = "rgba(128, 128, 128, 0.2)"
MARGIN = {"l": 60, "r": 24, "t": 24, "b": 52}  # px
FONT = {"family": 'system-ui, "Segoe UI", Helvetica, Arial, sans-serif', "size": 13}


def lam_colours(lams: Sequence[float]) -> list[str]:
    """One colour for each lam, from the part of Viridis that is legible on white and on black."""
    return [str(colour) for colour in sample_colorscale("Viridis", np.linspace(0.2, 0.88, len(lams)).tolist())]


def beta_labels(results: Results, lams: Sequence[float]) -> list[str]:
    """The equivalent betas as text: infinite at lam = 0, empty if there is none."""
    if results.anchor_beta is None:
        return [""] * len(lams)
    betas = [equivalent_beta(results, lam) for lam in lams]
    return ["∞" if lam == 0 else f"{beta:.3g}" if beta else "" for lam, beta in zip(lams, betas, strict=True)]


def reward_against_lam(
    results: Results, curve: Curve, sampled: Sequence[bool], *, chosen: float, reweighted: Reweighted | None = None
) -> go.Figure:
    """Mean score along lam, with a 95% band that covers the whole curve of changes from lam = 0.

    Sampled lams have a marker. ``reweighted`` adds the exact mixture's curve, dotted where it is unreliable.
    """
    reference = curve.score[curve.lams.index(0)]
    figure = blank("lam", curve.reward)
    high = [reference + band.high for band in curve.band]
    low = [reference + band.low for band in curve.band]
    outline = {"x": [*curve.lams, *reversed(curve.lams)], "y": [*high, *reversed(low)]}
    figure.add_scatter(**outline, fill="toself", fillcolor=BAND, line_width=0, mode="lines", hoverinfo="skip")
    figure.add_trace(_path(curve, curve.lams, sampled, chosen=chosen))
    if reweighted is not None:
        figure.add_traces(_reweighted_curve(reweighted, reweighted.lams))
    figure.add_hline(y=reference, line={"color": LINE, "width": 1, "dash": "dot"})
    figure.add_vline(x=chosen, line={"color": ACCENT, "width": 1.5, "dash": "dash"})
    axis = {"range": axis_range(curve.lams), "tickvals": _select_labels(curve.lams, chosen)}
    figure.update_xaxes(axis)
    if results.anchor_beta is not None:
        betas = beta_labels(results, axis["tickvals"])
        top = {"overlaying": "x", "side": "top", "showgrid": False, "ticktext": betas}
        figure.update_layout(xaxis2={**_axis("equivalent beta"), **axis, **top}, margin_t=64)
        # plotly draws an axis only if a trace uses it
        figure.data[1].xaxis = "x2"
    drawn = [*low, *high, *([] if reweighted is None else [score.mean for score in reweighted.score])]
    return follow_lam(figure, {lam: (lam, None) for lam in curve.lams}, [*curve.score, *drawn])


def reward_against_kl(
    results: Results, curve: Curve, sampled: Sequence[bool], *, chosen: float, reweighted: Reweighted | None = None
) -> go.Figure | None:
    """Mean score along the mean path KL, on a square-root scale; None if the KL was not recorded.

    ``reweighted`` adds the frontier: the gain of exact mixtures against their KL.
    """
    if results.path_kl is None or not np.isfinite(results.path_kl).any():
        return None
    root = np.array([_root_mean(results.path_kl[:, :, index]) for index in range(len(results.lams))])
    known = np.flatnonzero(np.isfinite(root))
    # interpolate between sampled lams: the root of path KL is nearly linear in lam
    root = np.interp(results.lams, np.array(results.lams)[known], root[known]).tolist()
    ticks = float(f"{max(root) / 5:.0e}") * np.arange(8)
    figure = blank("path KL to the reference (nats)", curve.reward)
    figure.add_trace(_path(curve, root, sampled, chosen=chosen, error_y=_bars(curve.change, sampled)))
    if reweighted is not None:
        figure.add_traces(_reweighted_curve(reweighted, np.sqrt(np.maximum(reweighted.kl, 0))))
    figure.update_xaxes(range=axis_range(root), tickvals=ticks, ticktext=[f"{tick:.3g}" for tick in ticks**2])
    drawn = [*_limits(curve, sampled), *([] if reweighted is None else [score.mean for score in reweighted.score])]
    return follow_lam(figure, dict(zip(curve.lams, zip(root, curve.score, strict=True), strict=True)), drawn)


def trusted_range(reweighted: Reweighted) -> go.Figure:
    """Effective sample size along lam, as a share of a prompt's images: the reliability of reweighting."""
    figure = blank("lam", "effective sample size")
    figure.add_scatter(
        x=reweighted.lams,
        y=reweighted.ess,
        mode="lines",
        line={"color": MIXTURE, "width": 2},
        hovertemplate="lam %{x}<br>%{y:.0%} of the images<extra></extra>",
    )
    for lam in reweighted.sampled:
        figure.add_vline(x=lam, line={"color": LINE, "width": 1})
    figure.add_hline(y=LEAST_ESS, line={"color": ACCENT, "width": 1.5, "dash": "dash"})
    figure.update_xaxes(range=axis_range(reweighted.lams)).update_yaxes(tickformat=".0%")
    return follow_lam(figure, {lam: (lam, None) for lam in reweighted.lams}, [0, 1])


def guard_against_objective(objective: Curve, guard: Curve, sampled: Sequence[bool], *, chosen: float) -> go.Figure:
    """The path of both means along lam; where it bends down, the objective is over-optimised."""
    figure = blank(f"{objective.reward} (objective)", f"{guard.reward} (held out)")
    bars = {"error_x": _bars(objective.change, sampled), "error_y": _bars(guard.change, sampled)}
    path = _path(guard, list(objective.score), sampled, chosen=chosen, **bars)
    labelled = [lam for lam in _select_labels(guard.lams, chosen) if sampled[guard.lams.index(lam)]]
    path.update(
        mode="lines+markers+text",
        text=[f"{lam:g}" if lam in labelled else "" for lam in guard.lams],
        textposition="top right",
        cliponaxis=False,
    )
    figure.add_trace(path).update_xaxes(range=axis_range([*objective.score, *_limits(objective, sampled)]))
    way = zip(objective.score, guard.score, strict=True)
    return follow_lam(figure, dict(zip(guard.lams, way, strict=True)), _limits(guard, sampled))


def follow_lam(figure: go.Figure, way: Mapping[float, tuple[float, float | None]], drawn: Sequence[float]) -> go.Figure:
    """Fix the range of y, and say where the cursor is at each lam.

    Args:
        figure: whose range of x is fixed.
        way: lam -> its x and y; y is None for a line across the plot.
        drawn: everything that y must show, besides the way.
    """
    heights = [y for _, y in way.values() if y is not None]
    cursor = {"lams": list(way), "x": [x for x, _ in way.values()], "y": heights or None}
    return figure.update_yaxes(range=axis_range([*heights, *drawn])).update_layout(meta={"cursor": cursor})


def _limits(curve: Curve, sampled: Sequence[bool]) -> list[float]:
    """Scores and the ends of their bars."""
    reference = curve.score[curve.lams.index(0)]
    bars = [change for change, shown in zip(curve.change, sampled, strict=True) if shown]
    return [*curve.score, *(reference + end for bar in bars for end in (bar.low, bar.high))]


def _reweighted_curve(reweighted: Reweighted, x: Iterable[float]) -> list[go.Scatter]:
    """The exact mixture's curve: dashed where it is reliable, dotted and faint elsewhere."""
    x, y = list(x), [score.mean for score in reweighted.score]
    hover = [
        f"lam {lam:g}, exact mixture<br>{escape(reweighted.reward)} {value:.3g}"
        for lam, value in zip(reweighted.lams, y, strict=True)
    ]
    doubted = {index for index, trusted in enumerate(reweighted.trusted) if not trusted}
    # the two lines meet at the last reliable lam
    shown = {
        True: set(range(len(y))) - doubted,
        False: {near for index in doubted for near in range(index - 1, index + 2)},
    }
    return [
        go.Scatter(
            x=x,
            y=[value if index in shown[trusted] else None for index, value in enumerate(y)],
            mode="lines",
            line={"color": MIXTURE, "width": 2, "dash": "dash" if trusted else "dot"},
            opacity=1 if trusted else 0.5,
            hovertext=hover,
            hoverinfo="text",
        )
        for trusted in (True, False)
    ]


def _root_mean(values: Any) -> float:
    return float(np.sqrt(np.nanmean(values))) if np.isfinite(values).any() else np.nan


def _path(curve: Curve, x: Iterable[float], sampled: Sequence[bool], *, chosen: float, **bars: Any) -> go.Scatter:
    """A line through a curve's mean scores with a marker at each sampled lam and a ring at the chosen one."""
    ring = [lam == chosen for lam in curve.lams]
    return go.Scatter(
        x=list(x),
        y=list(curve.score),
        mode="lines+markers",
        line={"color": LINE, "width": 1.5},
        marker={
            "color": lam_colours(curve.lams),
            "size": [15 if chosen else 10 if shown else 0 for chosen, shown in zip(ring, sampled, strict=True)],
            "opacity": 1,
            "line": {"color": [ACCENT if chosen else LINE for chosen in ring], "width": [3 if c else 1 for c in ring]},
        },
        customdata=[(f"{lam:g}", str(change)) for lam, change in zip(curve.lams, curve.change, strict=True)],
        hovertemplate=f"lam %{{customdata[0]}}<br>{escape(curve.reward)} %{{y:.3g}}"
        "<br>change %{customdata[1]}<extra></extra>",
        **bars,
    )


def _bars(changes: Sequence[Interval], sampled: Sequence[bool]) -> dict[str, Any]:
    above = [change.high - change.mean if shown else 0 for change, shown in zip(changes, sampled, strict=True)]
    below = [change.mean - change.low if shown else 0 for change, shown in zip(changes, sampled, strict=True)]
    return {"array": above, "arrayminus": below, "color": LINE, "thickness": 1, "width": 0}


def blank(x: str, y: str) -> go.Figure:
    """An empty figure with the titles of its axes."""
    layout = {
        "template": go.layout.Template(),
        "font": FONT,
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "height": 360,
        "margin": MARGIN,
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {"align": "left", "font": FONT},
    }
    return go.Figure(layout={**layout, "xaxis": _axis(x), "yaxis": _axis(y)})


def _axis(title: str) -> dict[str, Any]:
    text = {"text": escape(title), "font": {"size": FONT["size"]}, "standoff": 8}
    ticks = {"tickfont": {"size": 11}, "tickangle": 0}
    return {"title": text, **ticks, "gridcolor": RULE, "zeroline": False, "showline": False, "fixedrange": True}


def axis_range(values: Iterable[float]) -> list[float]:
    """The range of an axis over the finite values, with room for markers at both ends."""
    finite = [float(value) for value in values if np.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room, high + room]


def _select_labels(lams: Sequence[float], chosen: float) -> list[float]:
    """The lams whose labels fit (a seventh of the axis each): first the chosen one and the ends, then the others."""
    room = (lams[-1] - lams[0]) / 7
    labelled: list[float] = []
    for lam in (chosen, lams[-1], *lams):
        if all(abs(lam - other) >= room for other in labelled):
            labelled.append(lam)
    return sorted(labelled)
