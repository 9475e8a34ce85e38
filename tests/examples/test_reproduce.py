"""The paper's experiment as its script runs it, on tiny random models of the same classes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from accelerate.state import AcceleratorState
from tests import processes
from tests.align.trainings import pipeline, preferences

from deradiff.anchor.source import card_of
from deradiff.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"


# In place of a program: its words, a line each time it is started, in the folder where that is.
NOTE = '#!/bin/sh\n{ printf "%s\\0" "$@"; echo; } >> commands\n'
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


def commands(folder: Path, **settings: str) -> Iterator[list[str]]:
    """The words of each deradiff that the script starts, without those that launch it."""
    programs = folder.parent / "programs"
    programs.mkdir()
    for name in ("launch", "deradiff"):
        (programs / name).write_text(NOTE)
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    script = ["bash", str(EXAMPLES / "reproduce.sh"), str(folder)]
    subprocess.run(script, env={**os.environ, **settings, "LAUNCH": "launch", "PATH": path}, check=True)
    for line in (folder / "commands").read_text().splitlines():
        words = line.split("\0")[:-1]
        yield words[2:] if words[:2] == ["-m", "deradiff"] else words


def run(folder: Path, words: list[str]) -> None:
    """A process of its own in the folder."""
    AcceleratorState._reset_state(reset_partial_state=True)  # of the server's own training
    os.chdir(folder)
    sys.argv = ["deradiff", *words]
    main()


@pytest.mark.parametrize(("name", "specimen"), [("reproduce_sdxl", "sdxl"), ("reproduce_sd15", "sd")])
def test_from_preferences_to_the_comparison(tmp_path: Path, name: str, specimen: str) -> None:
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    pipeline(specimen).save_pretrained(folder / "tiny")
    pick_a_pic(folder / "pickapic")
    (folder / "mine.py").write_text(BRIGHTNESS)
    (folder / "prompts.txt").write_text("a red circle\na large blue square\n")
    small = "--model tiny --height 32 --width 32"
    training = f"{small} --steps 2 --train-batch-size 2 --gradient-accumulation-steps 1 --learning-rate 1e-3"
    sampling = f"{small} --steps 2 --device cpu --dtype float32 --rewards mine:brightness"
    asked = list(commands(folder, BETAS="1000 2000", SEEDS="0", ALIGN=training, COMPARE=sampling))
    assert [words[0] for words in asked] == ["align", "align", "compare"]
    for words in asked:
        process = processes.start(run, folder, words)
        process.join()
        assert process.exitcode == 0, words
    card = card_of(folder / "runs/beta1000-seed0")
    assert (card["beta"], card["full"], card["mixed_precision"], card["steps"]) == (1000, True, "bf16", 2)
    assert card["beta_convention"] == {"reduction": "mean", "factor": 0.5, "timestep_weight": 1.0}
    found = json.loads((folder / "runs/compare/results.json").read_text())
    assert found["betas"] == [1000, 2000]
    request = json.loads((folder / "runs/compare/compare.json").read_text())["request"]
    assert request["guidances"] == [5.0 if specimen == "sdxl" else 7.5]
    assert request["lams"] == [0, 1, 2]
    assert torch.tensor([row["mean"] for row in found["rows"]]).isfinite().all()
