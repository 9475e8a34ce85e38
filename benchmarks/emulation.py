"""How well lam emulates models aligned from scratch at other betas, on the embedded pipeline.

    python benchmarks/emulation.py [--full] [--json FILE] [--out FOLDER]

The model of beta 0.1 and training seed 0 emulates those of benchmarks/ladder/, from 0.8 down to 0.025, of two training
seeds each, on captions that no training saw; all are held against the optimum too. --full: four times the images, three
samplers, and other anchors: the weakest, the strongest, and the mean of the middle one's two training seeds. A stopped
run goes on in --out; ``deradiff compare`` is the same for any pipeline.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from ladder import CAPTIONS, LADDER, average

from deradiff import testbed
from deradiff.cli.common import progress
from deradiff.cli.compared import show
from deradiff.compare import Aligned, Comparison, compare
from deradiff.compare.outcome import Table, as_json

REWARDS = ("warmth", "faithfulness")
PROMPTS, STEPS, BATCH = 32, 20, 32
SEEDS, SAMPLES = 4, 96  # images of each prompt and arm; of the reference, for the optimum
FULL_SEEDS, FULL_SAMPLES = 16, 192
MIDDLE, WEAKEST, STRONGEST = "warmth-beta0.1-seed0", "warmth-beta0.8-seed0", "warmth-beta0.025-seed0"
ANCESTRAL = "EulerAncestralDiscreteScheduler"
OTHERS = ["DDIMScheduler", "DPMSolverMultistepScheduler"]


def comparisons(full: bool, out: Path) -> dict[str, Comparison]:
    """Folder -> what is compared there; the first gives the headline."""
    middle, weakest, strongest = (LADDER / name for name in (MIDDLE, WEAKEST, STRONGEST))
    if not full:
        return {"quick": comparison([middle], [ANCESTRAL], SEEDS, SAMPLES)}
    return {
        "ancestral": comparison([middle, weakest, strongest], [ANCESTRAL], FULL_SEEDS, FULL_SAMPLES),
        "averaged": comparison([average(0.1, out)], [ANCESTRAL], FULL_SEEDS, FULL_SAMPLES),
        "others": comparison([middle], OTHERS, FULL_SEEDS, FULL_SAMPLES),
    }


def comparison(anchors: list[Path], schedulers: list[str], seeds: int, samples: int) -> Comparison:
    """Anchors against the whole ladder."""
    seen = set(testbed.prompts(CAPTIONS, drop=1.0))
    fresh = [caption for caption in testbed.prompts(10 * PROMPTS, seed=3000, drop=1.0) if caption not in seen]
    return Comparison.from_models(
        [Aligned.read(path.name, str(path)) for path in anchors],
        [Aligned.read(path.name, str(path)) for path in sorted(LADDER.iterdir())],
        schedulers,
        optimum=samples,
        model="embedded",
        prompts=fresh[:PROMPTS],
        seeds=range(seeds),
        guidance=1.0,
        steps=STEPS,
        batch_size=BATCH,
    )


def measured(out: Path, full: bool) -> Iterator[Table]:
    """Sample what is missing, and the tables."""

    def locate(name: str) -> str:
        return str(next(folder / name for folder in (LADDER, out) if (folder / name).exists()))

    for name, own in comparisons(full, out).items():
        with progress(name, sum(arm.request.count for arm in own.arms())) as advance:
            yield from compare(out / name, own, testbed.load_pipeline(), REWARDS, locate, advance)


def main() -> None:
    """Measure, print tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/emulation"))
    given = parser.parse_args()
    tables = list(measured(given.out, given.full))
    for table in tables:
        show(table)
    if given.json:
        given.json.write_text(json.dumps(as_json(tables), indent=1) + "\n")


if __name__ == "__main__":
    main()
