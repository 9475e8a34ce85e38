"""How long `deradiff tune` takes on the embedded pipeline, from a reward to a baked LoRA, and what it costs the CPU.

    python benchmarks/tune.py --json benchmarks/results/tune.json

runs the command of docs/tune.md in a process of its own with the settings of docs/align.yaml, prints what each stage
took, and writes it.
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

SETTINGS = Path(__file__).parents[1] / "docs" / "align.yaml"
QUESTION = ("--objective", "warmth", "--guard", "faithfulness:-10%")
COMMAND = ("tune", "--self-label", "warmth", "--beta", "0.05", "--align-config", str(SETTINGS), *QUESTION)


def main() -> None:
    """Run it, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--distil", default="1min")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--steps", default="20")
    arguments = parser.parse_args()
    more = ("--distil", arguments.distil, "--seeds", arguments.seeds, "--steps", arguments.steps)
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "tuned"
        code = subprocess.run(
            [sys.executable, "-m", "deradiff", *COMMAND, *more, "--out", str(out)], check=False
        ).returncode
        stages = json.loads((out / "tune.json").read_text())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "cores": os.cpu_count(),
        "stages": {name: stage["seconds"] for name, stage in stages.items()},
    }
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
