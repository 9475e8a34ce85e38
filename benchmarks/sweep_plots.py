"""Pictures and tables of docs/performance.md, from what benchmarks/sweep.py wrote.

    python benchmarks/sweep_plots.py benchmarks/results/sweep.json

Writes docs/images/performance-*.png and prints the tables in markdown; needs a Chromium, as drawing is Plotly's.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright
from plotly.subplots import make_subplots
from sweep_cases import ANCESTRAL, DESCRIPTION, HEADLINE

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = {"published": "#7f7f7f", "exact": "#4c78a8", "adaptive .3 %": "#54a24b", "adaptive 1 %": "#d9622b"}
SETTINGS = ("pipeline", "anchor", "scheduler", "lams", "steps", "guidance", "side")
WIDTH, HEIGHT = 900, 640
LOOK = {
    "template": "plotly_white",
    "width": WIDTH,
    "height": HEIGHT,
    "margin": {"t": 50, "r": 20},
    "legend": {"orientation": "h", "y": 1.08},
}
Row = dict[str, Any]


def growth(rows: list[Row]) -> go.Figure:
    """Network calls and time of one image at all its lams, while one setting of the headline case changes."""
    figure = make_subplots(2, 2, horizontal_spacing=0.12, vertical_spacing=0.16)
    for mode, colour in COLOURS.items():
        lams, steps, sides = (_varied(rows, mode, name) for name in ("lams", "steps", "side"))
        lines = {
            (1, 1): ([row["lams"] for row in lams], [_calls(row) for row in lams]),
            (1, 2): ([row["steps"] for row in steps], [_calls(row) for row in steps]),
            (2, 1): _by_batch(next(row for row in steps if row["steps"] == HEADLINE.steps)),
            (2, 2): ([8 * row["side"] for row in sides], [row["lams"] * row["seconds_per_image"] for row in sides]),
        }
        for (line, column), (x, y) in lines.items():
            first = (line, column) == (1, 1)
            trace = go.Scatter(x=x, y=y, name=mode, line_color=colour, legendgroup=mode, showlegend=first)
            figure.add_trace(trace, line, column)
    for place, title in enumerate(("lams", "steps", "images sampled so far", "pixels a side")):
        figure.update_xaxes(title=title, row=place // 2 + 1, col=place % 2 + 1)
    figure.update_yaxes(title="network calls an image, all lams", rangemode="tozero")
    figure.update_yaxes(title="seconds an image, all lams", row=2, col=2)
    return figure


def errors(rows: list[Row]) -> go.Figure:
    """How many times fewer network calls at which mean error, in the cases of 17 lams and 50 steps."""
    figure, most = go.Figure(), max(row["calls_ratio"] for row in rows if _is(row, HEADLINE))
    for symbol, case in (("circle", HEADLINE), ("diamond", ANCESTRAL)):
        own = [row for row in rows if _is(row, case) and row.get("rel_error", 0) > 1e-4]
        figure.add_scatter(
            x=[row["calls_ratio"] for row in own],
            y=[100 * row["rel_error"] for row in own],
            error_y={"array": [100 * row["rel_error_se"] for row in own]},
            text=[row["mode"] for row in own],
            name=case.scheduler.removesuffix("Scheduler"),
            mode="markers+text",
            textposition="middle right",
            marker={"symbol": symbol, "size": 11},
        )
    figure.update_xaxes(title="times fewer network calls than the published way", range=[0, 1.2 * most])
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    figure.update_yaxes(title="mean error of final latents, %, with its standard error", type="log", tickvals=ticks)
    return figure


def tables(rows: list[Row]) -> Iterator[str]:
    """A markdown table of every case."""
    for case in dict.fromkeys(tuple(row[name] for name in SETTINGS) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in SETTINGS) == case]
        yield f"\n{DESCRIPTION.format(**own[0])}\n"
        yield "| mode | fewer calls | less time | mean error | worst lam | over 5 % | largest change of mean warmth |"
        yield "|---|---|---|---|---|---|---|"
        for row in own[1:]:
            change = f"{row['warmth_change_in_se']:.2f} SE" if "warmth_change_in_se" in row else ""
            yield (
                f"| {row['mode']} | {row['calls_ratio']:.2f} × | {row['wall_ratio']:.2f} × | {row['rel_error']:.2%} | "
                f"{row['worst_lam_error']:.2%} | {row['share_over_5_percent']:.1%} | {change} |"
            )


def _is(row: Row, case: Any, but: str = "") -> bool:
    return all(row[name] == getattr(case, name) for name in SETTINGS if name != but)


def _varied(rows: list[Row], mode: str, name: str) -> list[Row]:
    own = [row for row in rows if row["mode"] == mode and _is(row, HEADLINE, but=name)]
    return sorted(own, key=lambda row: row[name])


def _calls(row: Row) -> float:
    return row["calls"] / (row["prompts"] * row["seeds"])


def _by_batch(row: Row) -> tuple[list[float], list[float]]:
    """Images so far, and the mean of their calls."""
    images, calls = row["prompts"] * row["seeds"], row["calls_by_batch"]
    done = [images * (place + 1) / len(calls) for place in range(len(calls))]
    return done, [sum(calls[: place + 1]) / count for place, count in enumerate(done)]


def save(figures: dict[str, go.Figure]) -> None:
    """Draw figures in a browser and keep its picture of each."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        for name, figure in figures.items():
            figure.update_layout(**LOOK)
            page.set_content(figure.to_html(config={"staticPlot": True}))
            page.locator(".main-svg").first.wait_for()
            page.locator(".plotly-graph-div").screenshot(path=IMAGES / f"performance-{name}.png")
        browser.close()


def main() -> None:
    """Draw, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    rows = json.loads(parser.parse_args().json.read_text())["rows"]
    save({"growth": growth(rows), "error": errors(rows)})
    print("\n".join(tables(rows)))


if __name__ == "__main__":
    main()
