"""How exact sampling is: plain and corrected, on Gaussian mixtures that are known and on the embedded pipeline.

    python benchmarks/exactness.py [--only oracles|trained] [--json FILE] [--out FOLDER]

The trained part samples into --out, where a stopped run goes on. docs/exactness.md tells what came out.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exactness_oracles import SCHEDULERS, curve_error, gaussian_linear_error, headline, problems, rows
from exactness_trained import measured
from rich import print as show

Row = dict[str, Any]


def oracles() -> Row:
    """The tables of all problems, and the figures that stand for them."""
    table: list[Row] = []
    first = list(headline())
    for name, problem in problems().items():
        for scheduler in SCHEDULERS:
            for row in rows(name, problem, scheduler):
                table.append(row)
                show(row)
    curves = {name: [curve_error(problem, images) for images in (64, 128)] for name, problem in problems().items()}
    three, ring = {"problem": "three modes, linear"}, {"problem": "ring of eight, linear"}
    found: Row = {}
    for label, particles in (("plain", 1), ("k8", 8), ("exact_model", "from scratch")):
        for suffix, scheduler in (("", "Euler-ancestral"), ("_ddim", "DDIM")):
            asked = {"scheduler": scheduler, "particles": particles}
            found[f"oracle_1d_kl_{label}{suffix}"] = one(first, **three, **asked)["histogram_kl"]
            found[f"ring_sw2_{label}{suffix}"] = one(first, **ring, **asked)["sw2"]
    found["oracle_1d_kl_floor"] = one(first, **three, scheduler="DDIM", particles=1)["floor_kl"]
    found["ring_sw2_floor"] = one(first, **ring, scheduler="DDIM", particles=1)["floor_sw2"]
    found["gaussian_linear_max_error"] = gaussian_linear_error(problems()["one Gaussian, linear"])
    found["curve_error_from_two"] = max(errors[0]["worst"] for errors in curves.values())
    return {**found, "headline": first, "oracles": table, "curves": curves}


def trained(out: Path) -> Row:
    """What the embedded pipeline's anchors gave, and means over them."""
    entries = []
    for entry in measured(out):
        entries.append(entry)
        show(entry)
    found: Row = {}
    for label in ("plain", "k4", "k8", "scratch", "reference", "anchor"):
        for suffix, lam in (("", 0.25), ("_half", 0.5)):
            own = [arm for entry in entries if entry.get("lam") == lam for arm in entry["arms"]]
            own = [arm for arm in own if arm["arm"].startswith(label)]
            found[f"trained_gap_{label}{suffix}"] = mean(arm["energy_distance"]["mean"] for arm in own)
            found[f"trained_warmth_gap_{label}{suffix}"] = mean(arm["warmth"]["gap"]["mean"] for arm in own)
            found[f"trained_faithfulness_{label}{suffix}"] = mean(arm["faithfulness"]["mean"] for arm in own)
    return {**found, "trained": entries}


def one(table: Iterable[Row], **asked: Any) -> Row:
    """The row that is asked for."""
    return next(row for row in table if all(row[key] == value for key, value in asked.items()))


def mean(values: Iterable[float]) -> float:
    """Of an anchor each."""
    return float(np.mean(list(values)))


def main() -> None:
    """Measure, print, and write JSON where asked; keys of a part that was left out stay as they are in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["oracles", "trained"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/exactness"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: Row = {}
    if given.only != "trained":
        found |= oracles()
    if given.only != "oracles":
        found |= trained(given.out)
    show({key: value for key, value in found.items() if isinstance(value, float)})
    if given.json:
        before = json.loads(given.json.read_text()) if given.json.exists() else {}
        given.json.write_text(json.dumps({**before, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
