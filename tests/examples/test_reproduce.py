"""The paper's experiment as its script runs it, on tiny random models of the same classes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from tests.align.subject import pipeline, preferences

from deradiff.anchor.source import card_of

EXAMPLES = Path(__file__).parents[2] / "examples"


# The published rewards need weights.
BRIGHTNESS = "def brightness(images, prompts):\n    return images.mean((1, 2, 3))\n"


def pick_a_pic(folder: Path) -> None:
    """A few rows of its columns, with the pictures of other tests."""
    pairs = preferences(folder.parent / "pictures").pairs
    pictures = sorted((folder.parent / "pictures").glob("*.png"))
    rows = [
        {"caption": pair.prompt, "jpg_0": pictures[2 * at].read_bytes(), "jpg_1": pictures[2 * at + 1].read_bytes()}
        | {"label_0": at % 2, "label_1": 1 - at % 2}
        for at, pair in enumerate(pairs)
    ]
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")


@pytest.mark.parametrize(("name", "specimen"), [("reproduce_sdxl", "sdxl"), ("reproduce_sd15", "sd")])
def test_from_preferences_to_the_comparison(tmp_path: Path, name: str, specimen: str) -> None:
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    pipeline(specimen).save_pretrained(folder / "tiny")
    pick_a_pic(folder / "pickapic")
    (folder / "mine.py").write_text(BRIGHTNESS)
    (folder / "prompts.txt").write_text("a red circle\na large blue square\n")
    small = "--model tiny --height 32 --width 32"
    python = Path(sys.executable).parent
    given = {
        "BETAS": "1000 2000",
        "SEEDS": "0",
        "LAUNCH": "python",
        "ALIGN": f"{small} --steps 2 --train-batch-size 2 --gradient-accumulation-steps 1 --learning-rate 1e-3",
        "COMPARE": f"{small} --steps 2 --device cpu --dtype float32 --rewards mine:brightness",
        "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", str(EXAMPLES / "reproduce.sh"), str(folder)]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    card = card_of(folder / "runs/beta1000-seed0")
    assert (card["beta"], card["full"], card["mixed_precision"], card["steps"]) == (1000, True, "bf16", 2)
    assert card["beta_convention"] == {"reduction": "mean", "factor": 0.5, "timestep_weight": 1.0}
    found = json.loads((folder / "runs/compare/results.json").read_text())
    assert found["betas"] == [1000, 2000]
    request = json.loads((folder / "runs/compare/compare.json").read_text())["request"]
    assert request["guidances"] == [5.0 if specimen == "sdxl" else 7.5]
    assert request["lams"] == [0, 1, 2]
    assert torch.tensor([row["mean"] for row in found["rows"]]).isfinite().all()
