"""The picture of docs/scaling.md, from what benchmarks/scale.py wrote.

    python benchmarks/scale_plots.py benchmarks/results/scale.json

Writes docs/images/scaling.png; needs a Chromium, as drawing is Plotly's.
"""

import argparse
import json
from pathlib import Path

import plotly.graph_objects as go

IDEAL = {"dash": "dash", "color": "#7f7f7f"}
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "scaling.png"


def main() -> None:
    """Draw cells a minute against workers, beside what workers without any overhead would do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    runs = json.loads(parser.parse_args().json.read_text(encoding="utf-8"))["runs"]
    workers = [run["workers"] for run in runs]
    rates = [60 * run["cells"] / run["wall"] for run in runs]
    ideal = [rate / run["efficiency"] for rate, run in zip(rates, runs, strict=True)]
    figure = go.Figure()
    figure.add_scatter(
        x=workers, y=ideal, name="workers that are always busy", line={"dash": "dash", "color": "#7f7f7f"}
    )
    figure.add_scatter(x=workers, y=rates, name="measured", mode="lines+markers", line={"color": "#4c78a8"})
    figure.update_xaxes(title="workers", type="log", tickvals=workers)
    figure.update_yaxes(title="cells a minute", type="log", tickvals=[500, 1000, 2000, 5000, 10000])
    look = {"orientation": "h", "y": 1.12}
    figure.update_layout(template="plotly_white", width=720, height=420, margin={"t": 40, "r": 20}, legend=look)
    figure.write_image(IMAGE, scale=2)


if __name__ == "__main__":
    main()
