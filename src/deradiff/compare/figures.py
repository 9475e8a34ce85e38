"""The figures of a comparison's page as plotly specs."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from deradiff.analysis.statistics import Interval
from deradiff.compare.optimum import SCRATCH
from deradiff.compare.outcome import ANCHOR, DERADIFF, REFERENCE, WEIGHTS, Table
from deradiff.compare.statistics import NULL
from deradiff.report.figures import ACCENT, BAND, LINE, blank

NAMES = {
    SCRATCH: "from scratch",
    DERADIFF: "DeRaDiff",
    WEIGHTS: "weight interpolation",
    ANCHOR: "the anchor",
    REFERENCE: "the reference",
    NULL: "null predictor",
}
COLOURS = {
    SCRATCH: LINE,
    DERADIFF: ACCENT,
    WEIGHTS: "#3d84c6",
    ANCHOR: "#8a63b8",
    REFERENCE: "#3f9d6b",
    NULL: "#8c8c8c",
}
EMULATIONS = (DERADIFF, WEIGHTS, ANCHOR, REFERENCE, NULL)  # what is held against models from scratch
HEIGHT = 420  # px, with room for the legend


def rewards(table: Table) -> go.Figure:
    """Mean reward against beta: every arm with the paired interval of its error, and each model from scratch."""
    figure = _against_beta(table, f"mean {table.reward}")
    means = [sum(seeds) / len(seeds) for seeds in table.scratch_means]
    figure.add_scatter(x=table.betas, y=means, name=NAMES[SCRATCH], mode="lines", line={"color": LINE, "width": 5})
    figure.add_scatter(
        x=[beta for beta, seeds in zip(table.betas, table.scratch_means, strict=True) for _ in seeds],
        y=[mean for seeds in table.scratch_means for mean in seeds],
        name="its training seeds",
        mode="markers",
        marker={"color": LINE, "size": 9, "symbol": "line-ew-open", "line_width": 2},
    )
    return _arms(figure, table.betas, _errors(table), means, scale=1)


def errors(table: Table) -> go.Figure | None:
    """Error in % of the spread against beta, over the band of seed noise; None where there is no spread."""
    if not table.spread.size:
        return None
    figure = _against_beta(table, "error, % of the spread")
    figure.add_hline(y=0, line={"color": LINE, "width": 1})
    noise = table.headline["seed_noise_share"]
    if noise is not None:
        figure.add_hrect(y0=-100 * noise, y1=100 * noise, fillcolor=BAND, line_width=0, layer="below")
    return _arms(figure, table.betas, _errors(table), [0.0] * len(table.betas), scale=100 / table.spread.size)


def to_optimum(table: Table) -> go.Figure | None:
    """Error against the optimum in % of its spread, of models from scratch too; None where the optimum isn't known."""
    own = table.optimum
    if own is None or not own.spread:
        return None
    shown = {arm: own.of(arm) for arm in (SCRATCH, DERADIFF, WEIGHTS, ANCHOR, REFERENCE)}
    figure = _against_beta(table, "error against the optimum, % of its spread")
    figure.add_hline(y=0, line={"color": LINE, "width": 1})
    betas = [row.beta for row in shown[SCRATCH]]
    errors = {arm: [row.error for row in rows] for arm, rows in shown.items()}
    return _arms(figure, betas, errors, [0.0] * len(betas), scale=100 / own.spread)


def _errors(table: Table) -> dict[str, list[Interval]]:
    return {arm: [row.error for row in table.of(arm)] for arm in EMULATIONS}


def _arms(
    figure: go.Figure, betas: Sequence[float], errors: Mapping[str, list[Interval]], zero: list[float], scale: float
) -> go.Figure:
    """A line for each arm at its error, times ``scale``, above ``zero``."""
    for place, (arm, found) in enumerate(errors.items()):
        figure.add_scatter(
            # Side by side, so that no interval hides another.
            x=[beta * 1.025 ** (place - 2) for beta in betas],
            y=[base + scale * error.mean for base, error in zip(zero, found, strict=True)],
            error_y={
                "array": [scale * (error.high - error.mean) for error in found],
                "arrayminus": [scale * (error.mean - error.low) for error in found],
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
