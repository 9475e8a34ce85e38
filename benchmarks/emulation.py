"""How well lam emulates anchors that were aligned from scratch at other betas, on the embedded pipeline.

    python benchmarks/emulation.py [--json FILE] [--out FOLDER]

The anchor of beta 0.05 emulates its sisters from 0.2 down to 0.0125, of two training seeds each, on prompts that no
training saw. A stopped run goes on in --out. ``deradiff compare`` is the same at any size and for any pipeline.
"""

import argparse
import shutil
from pathlib import Path

from deradiff import testbed
from deradiff.cli.common import anchor_name, progress
from deradiff.cli.compare import show
from deradiff.compare import Aligned, Comparison, compare

ANCHOR = "embedded:warmth-beta0.05-seed0"
SCHEDULER = "EulerAncestralDiscreteScheduler"
REWARDS = ("warmth", "faithfulness")
PROMPTS, SEEDS, STEPS, BATCH = 32, 2, 20, 32


def main() -> None:
    """Measure, print tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/emulation"))
    given = parser.parse_args()
    comparison = Comparison.of(
        [Aligned.read(ANCHOR, anchor_name(ANCHOR))],
        [Aligned.read(f"embedded:{name}", str(testbed.anchor_path(name))) for name in testbed.anchor_names()],
        [SCHEDULER],
        model="embedded",
        prompts=testbed.prompts(PROMPTS, seed=3000),
        seeds=range(SEEDS),
        guidances=[1.0],
        steps=STEPS,
        batch_size=BATCH,
    )
    with progress("sampling", sum(plan.count for plan in comparison.plans().values())) as advance:
        tables = compare(given.out, comparison, testbed.load_pipeline(), REWARDS, anchor_name, advance)
    for table in tables:
        show(table)
    if given.json:
        shutil.copy(given.out / "results.json", given.json)


if __name__ == "__main__":
    main()
