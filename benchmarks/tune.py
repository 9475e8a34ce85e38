"""How long `deradiff tune` takes on the embedded pipeline, from preferences to a baked LoRA, and what it costs the CPU.

    python benchmarks/tune.py --json benchmarks/results/tune.json

First draws preferences (own samples, labelled by `warmth`; timed by themselves), then runs `deradiff tune --data` in a
process of its own with the settings of docs/align.yaml, prints what each stage took, and writes it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from rich.progress import track

from deradiff import testbed
from deradiff.align.self_label import self_label

CAPTIONS, IMAGES = 192, 4
SETTINGS = Path(__file__).parents[1] / "docs" / "align.yaml"
QUESTION = ("--objective", "warmth", "--guard", "faithfulness:-10%", "--seeds", "1", "--steps", "12")
COMMAND = ("tune", "--beta", "0.05", *QUESTION)


def draw_preferences(folder: Path) -> None:
    """Samples of the reference, every two of a caption labelled by the reward."""
    captions = testbed.prompts(CAPTIONS, seed=0, drop=1.0)  # open ones, where warmth has something to prefer
    done = iter(track(range(len(captions)), description="preferences"))
    self_label(
        testbed.load_pipeline(), captions, testbed.warmth, folder,
        images=IMAGES, steps=20, guidance=1.0, advance=lambda count: next(done),
    )  # fmt: skip


def main() -> None:
    """Run it, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--preferences", type=Path, help="a folder of preferences to take, or to keep them in")
    parser.add_argument("--distil", default="1min")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        preferences, out = arguments.preferences or Path(folder) / "preferences", Path(folder) / "tuned"
        began = time.monotonic()
        draws = not (preferences / "pairs.jsonl").exists()
        if draws:
            draw_preferences(preferences)
        drawn = time.monotonic()
        settings = yaml.safe_load(SETTINGS.read_text())
        del settings["images"]  # of own samples, which are drawn by now
        (Path(folder) / "align.yaml").write_text(yaml.safe_dump(settings))
        words = [*COMMAND, "--data", str(preferences), "--align-config", str(Path(folder) / "align.yaml")]
        words += ["--distil", arguments.distil, "--out", str(out)]
        # networks so small gain nothing by a second thread
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run([sys.executable, "-m", "deradiff", *words], env=environment, check=False).returncode
        seconds = time.monotonic() - drawn
        stages = json.loads((out / "tune.json").read_text())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "exit_code": code,
        "preferences_seconds": round(drawn - began, 1) if draws else None,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "stages": {name: stage["seconds"] for name, stage in stages.items()},
    }
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
