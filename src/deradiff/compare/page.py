"""A comparison as one self-contained html page, with its figures as plotly specs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go

from deradiff.analysis.statistics import Interval
from deradiff.compare.optimum import RETRAINED
from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS, Table
from deradiff.compare.statistics import NULL
from deradiff.report.figures import ACCENT, BAND, LINE, blank
from deradiff.report.template import render as fill

NAMES = {
    RETRAINED: "retrained",
    DERADIFF: "DeRaDiff",
    WEIGHTS: "weight interpolation",
    ANCHOR: "the anchor",
    REFERENCE: "the reference",
    NULL: "null predictor",
}
COLOURS = {
    RETRAINED: LINE,
    DERADIFF: ACCENT,
    WEIGHTS: "#3d84c6",
    ANCHOR: "#8a63b8",
    REFERENCE: "#3f9d6b",
    NULL: "#8c8c8c",
}
EMULATIONS = (DERADIFF, WEIGHTS, ANCHOR, REFERENCE, NULL)  # what is compared with retrained models
HEIGHT = 420  # px, with room for the legend


def render(tables: Sequence[Table], facts: Mapping[str, str]) -> bytes:
    """Render one self-contained html page.

    Args:
        tables: at least one; the first one's headline is shown.
        facts: the settings needed to repeat the comparison, name -> value.
    """
    sections = [
        (table, *map(_to_json, (plot_rewards(table), plot_errors(table), plot_optimum_errors(table))))
        for table in tables
    ]
    names = {arm: NAMES[arm] for arm in EMULATIONS}
    values = {"tables": tables, "sections": sections, "facts": facts, "names": names}
    return fill("page.html", values, [Path(__file__).parent])


def _to_json(figure: go.Figure | None) -> str | None:
    return None if figure is None else figure.to_json()


def plot_rewards(table: Table) -> go.Figure:
    """Mean reward against beta: each arm with the paired interval of its error, and each retrained model."""
    figure = _against_beta(table, f"mean {table.reward}")
    means = [sum(seeds) / len(seeds) for seeds in table.retrained_means]
    figure.add_scatter(x=table.betas, y=means, name=NAMES[RETRAINED], mode="lines", line={"color": LINE, "width": 5})
    figure.add_scatter(
        x=[beta for beta, seeds in zip(table.betas, table.retrained_means, strict=True) for _ in seeds],
        y=[mean for seeds in table.retrained_means for mean in seeds],
        name="its training seeds",
        mode="markers",
        marker={"color": LINE, "size": 9, "symbol": "line-ew-open", "line_width": 2},
    )
    return _add_arms(figure, table.betas, _arm_errors(table), means, scale=1)


def plot_errors(table: Table) -> go.Figure | None:
    """Error in % of the spread against beta, with the band of seed noise; None if the spread is 0."""
    if not table.spread.size:
        return None
    figure = _against_beta(table, "error, % of the spread")
    figure.add_hline(y=0, line={"color": LINE, "width": 1})
    noise = table.headline["seed_noise_share"]
    if noise is not None:
        figure.add_hrect(y0=-100 * noise, y1=100 * noise, fillcolor=BAND, line_width=0, layer="below")
    return _add_arms(figure, table.betas, _arm_errors(table), [0.0] * len(table.betas), scale=100 / table.spread.size)


def plot_optimum_errors(table: Table) -> go.Figure | None:
    """Error against the optimum in % of its spread, also of retrained models; None if the optimum is unknown."""
    optimum = table.optimum
    if optimum is None or not optimum.spread:
        return None
    rows_by_arm = {arm: optimum.arm_rows(arm) for arm in (RETRAINED, DERADIFF, WEIGHTS, ANCHOR, REFERENCE)}
    figure = _against_beta(table, "error against the optimum, % of its spread")
    figure.add_hline(y=0, line={"color": LINE, "width": 1})
    betas = [row.beta for row in rows_by_arm[RETRAINED]]
    errors = {arm: [row.error for row in rows] for arm, rows in rows_by_arm.items()}
    return _add_arms(figure, betas, errors, [0.0] * len(betas), scale=100 / optimum.spread)


def _arm_errors(table: Table) -> dict[str, list[Interval]]:
    return {arm: [row.error for row in table.arm_rows(arm)] for arm in EMULATIONS}


def _add_arms(
    figure: go.Figure, betas: Sequence[float], errors: Mapping[str, list[Interval]], base: list[float], scale: float
) -> go.Figure:
    """Add a line for each arm at ``base`` + ``scale`` * error."""
    for position, (arm, intervals) in enumerate(errors.items()):
        figure.add_scatter(
            # side by side, so that no interval hides another
            x=[beta * 1.025 ** (position - 2) for beta in betas],
            y=[start + scale * error.mean for start, error in zip(base, intervals, strict=True)],
            error_y={
                "array": [scale * (error.high - error.mean) for error in intervals],
                "arrayminus": [scale * (error.mean - error.low) for error in intervals],
                "thickness": 1,
                "width": 0,
            },
            name=NAMES[arm],
            mode="lines+markers",
            line={"color": COLOURS[arm], "width": 1.5, "dash": "dot" if arm in (ANCHOR, REFERENCE, NULL) else "solid"},
            marker={"size": 7},
            customdata=[f"{beta:g}" for beta in betas],
            hovertemplate=f"{NAMES[arm]}, beta %{{customdata}}<br>%{{y:.3g}}<extra></extra>",
        )
    return figure


def _against_beta(table: Table, y: str) -> go.Figure:
    figure = blank("beta", y)
    figure.update_xaxes(type="log", tickvals=table.betas, ticktext=[f"{beta:g}" for beta in table.betas])
    figure.add_vline(x=table.anchor_beta, line={"color": LINE, "width": 1, "dash": "dash"})
    return figure.update_layout(
        showlegend=True, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, margin_t=8
    )
