"""Pictures and tables of docs/exactness.md, from what benchmarks/exactness.py wrote.

    python benchmarks/exactness_plots.py benchmarks/results/exactness.json

Writes docs/images/exactness-*.png and prints tables in markdown; needs a Chromium, as drawing is Plotly's.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from playwright.sync_api import sync_playwright
from plotly.subplots import make_subplots

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = {"plain": "#d9622b", "8 particles": "#3f8fd2", "the exact model itself": "#7f7f7f"}
KINDS = {"plain": 1, "8 particles": 8, "the exact model itself": "from scratch"}
ARMS = {"plain": "plain", "k4": "4 particles", "k8": "8 particles", "scratch": "retrained", "reference": "reference"}
ARM_COLOURS = ("#d9622b", "#9cc9ee", "#3f8fd2", "#7f7f7f", "#cccccc")
LOOK: dict[str, Any] = {
    "template": "plotly_white",
    "width": 980,
    "height": 420,
    "margin": {"t": 60, "r": 20, "b": 50},
    "legend": {"orientation": "h", "y": 1.17},
}
Row = dict[str, Any]


def oracles(rows: list[Row]) -> go.Figure:
    """Sliced Wasserstein-2 distance to exact samples along lam, under a stochastic and a deterministic sampler."""
    problem = "ring of eight, linear"
    titles = ("Euler-ancestral", "DDIM")
    figure = make_subplots(1, 2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.06)
    for column, scheduler in enumerate(titles, start=1):
        for label, kind in KINDS.items():
            own = [r for r in rows if (r["problem"], r["scheduler"], r["particles"]) == (problem, scheduler, kind)]
            line = {"color": COLOURS[label], "dash": "dot" if kind == "from scratch" else "solid"}
            lams, errors = [str(r["lam"]) for r in own], [r["sw2"] for r in own]
            figure.add_scatter(x=lams, y=errors, name=label, line=line, showlegend=column == 1, row=1, col=column)
        figure.update_xaxes(title="lam", type="category", row=1, col=column)
    return figure.update_yaxes(title="distance to exact samples (SW2)", rangemode="tozero", row=1, col=1)


def trained(entries: list[Row]) -> go.Figure:
    """Energy distance to the exact optimum of each arm, means over training seeds."""
    figure = make_subplots(1, 2, subplot_titles=("lam = ¼", "lam = ½"), shared_yaxes=True, horizontal_spacing=0.06)
    for column, lam in enumerate((0.25, 0.5), start=1):
        table = by_anchor(entries, lam)
        for (arm, label), colour in zip(ARMS.items(), ARM_COLOURS, strict=True):
            values = [own[arm]["energy"] for own in table.values()]
            labels = [f"anchor {beta:g}<br>for beta {beta / lam:g}" for beta in table]
            figure.add_bar(
                x=labels, y=values, name=label, marker_color=colour, showlegend=column == 1, row=1, col=column
            )
    return figure.update_yaxes(title="energy distance to the optimum", row=1, col=1)


def by_anchor(entries: list[Row], lam: float) -> dict[float, dict[str, Row]]:
    """Anchor's beta -> arm -> means over its training seeds (and over those of models from scratch)."""
    found: dict[float, dict[str, Row]] = {}
    for beta in sorted({beta_of(entry) for entry in entries}, reverse=True):
        own = [arm for e in entries if beta_of(e) == beta and e.get("lam") == lam for arm in e["arms"]]
        for name in (*ARMS, "anchor"):
            arms = [arm for arm in own if arm["arm"].startswith(name)]
            found.setdefault(beta, {})[name] = {
                "energy": float(np.mean([arm["energy_distance"]["mean"] for arm in arms])),
                **{key: float(np.mean([arm[key]["mean"] for arm in arms])) for key in ("warmth", "faithfulness")},
                "optimum": arms[0]["warmth"]["optimum"],
                "optimum_faithfulness": arms[0]["faithfulness"]["optimum"],
            }
    return found


def beta_of(entry: Row) -> float:
    """The KL strength of an entry's anchor."""
    return float(entry["anchor"].split("-")[1].removeprefix("beta"))


def tables(found: Row) -> None:
    """Print markdown."""
    for lam in (0.25, 0.5):
        print(f"\nlam = {lam:g}: energy distance (warmth, faithfulness)")
        print("| anchor | optimum at |", " | ".join((*ARMS.values(), "anchor")), "| optimum |")
        for beta, arms in by_anchor(found["trained"], lam).items():
            told = (f"{a['energy']:.3f} ({a['warmth']:.2f}, {a['faithfulness']:.2f})" for a in arms.values())
            best = f"{arms['plain']['optimum']:.2f}, {arms['plain']['optimum_faithfulness']:.2f}"
            print(f"| {beta:g} | {beta / lam:g} | {' | '.join(told)} | {best} |")
    for entry in found["trained"]:
        if "calibration" in entry:
            print(entry["anchor"], {k: v for k, v in entry["calibration"].items() if k != "slope_interval"})
    print("\nSW2 to exact samples: plain / 4 / 8 / 16 particles / the exact model; floor")
    rows = found["oracles"]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        for scheduler in dict.fromkeys(row["scheduler"] for row in rows):
            cells = []
            for lam in (0.25, 0.5, 2.0):
                own = [r for r in rows if (r["problem"], r["scheduler"], r["lam"]) == (problem, scheduler, lam)]
                kinds = {row["particles"]: row["sw2"] for row in own}
                told = " / ".join(f"{kinds[kind]:.3f}" for kind in (1, 4, 8, 16, "from scratch"))
                cells.append(f"{told}; {own[0]['floor_sw2']:.3f}")
            print(f"| {problem} | {scheduler} | {' | '.join(cells)} |")
    print("\npath KL against exact KL, and correlation of L with the reward")
    for row in rows:
        if row["particles"] == 1 and row["scheduler"] in ("Euler-ancestral", "DDIM") and row["lam"] in (0.0, 0.5, 1.0):
            told = f"{row['path_kl']:.3f} ({row['exact_kl']:.3f})"
            print(f"| {row['problem']} | {row['scheduler']} | {row['lam']:g} | {told} |", end=" ")
            print(f"{row.get('implicit_reward_correlation', float('nan')):.3f}")
    for name, curves in found["curves"].items():
        print(f"| {name} |", " | ".join(f"{curve['images']} images: {curve['worst']:.3f}" for curve in curves), "|")


def save(figure: go.Figure, path: Path) -> None:
    """As a picture."""
    figure.update_layout(**LOOK)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": LOOK["width"], "height": LOOK["height"]}, device_scale_factor=2)
        page.set_content(figure.to_html(include_plotlyjs=True))
        page.locator(".main-svg").first.wait_for()
        page.screenshot(path=path, clip={"x": 8, "y": 8, "width": LOOK["width"], "height": LOOK["height"]})
        browser.close()


def main() -> None:
    """Print the tables and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text())
    tables(found)
    save(oracles(found["oracles"]), IMAGES / "exactness-oracles.png")
    save(trained(found["trained"]), IMAGES / "exactness-trained.png")


if __name__ == "__main__":
    main()
