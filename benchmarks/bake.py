"""How near a bake comes to the realigned pipeline: weights alone, and distilled.

    python benchmarks/bake.py --json benchmarks/results/bake.json

On the embedded pipeline with its most strongly aligned anchor: at each lam the mean relative error of final latents of
held-out prompts, for the weights bake and for a LoRA distilled for `--seconds`, and the same error of the reference.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from deradiff import testbed
from deradiff.bake import Distillation, LoraUpdate, bake_weights, distil, measure, write_lora
from deradiff.runs.recipe import Recipe

ANCHOR = "warmth-beta0.0125-seed0"
LAMS = (-0.5, 0.25, 0.5, 2.0, 4.0)
RECIPE = Recipe(steps=25, batch_size=8)
GUIDANCE = 1.0
MEASURED, TRAINED = testbed.prompts(16, seed=99), testbed.prompts(256, seed=5, drop=0.3)


def errors(pipe: Any, anchor: str, lam: float, update: LoraUpdate) -> tuple[float, float]:
    """Mean relative error of final latents, of a bake and of the reference."""
    with TemporaryDirectory() as folder:
        write_lora(pipe, update, Path(folder), card={})
        quality = measure(pipe, anchor, lam, folder, MEASURED, RECIPE, guidance=GUIDANCE)
    return quality.error, float(quality.changes.mean())


def main() -> None:
    """Bake at every lam, print the errors, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lams", type=float, nargs="+", default=LAMS)
    parser.add_argument("--seconds", type=float, default=240)
    arguments = parser.parse_args()
    pipe, anchor = testbed.load_pipeline(), str(testbed.anchor_path(ANCHOR))
    training = [text for text in TRAINED if text not in MEASURED]
    figures: dict[str, Any] = {"weights_error": {}, "distil_error": {}, "reference_error": {}, "distil_s": {}}
    for lam in arguments.lams:
        start = bake_weights(pipe, anchor, lam)
        figures["weights_error"][lam], figures["reference_error"][lam] = errors(pipe, anchor, lam, start)
        begun = time.monotonic()
        settings = Distillation(seconds=arguments.seconds)
        update = distil(pipe, anchor, lam, start, training, settings, RECIPE, GUIDANCE)
        figures["distil_s"][lam] = time.monotonic() - begun
        figures["distil_error"][lam], _ = errors(pipe, anchor, lam, update)
        print({name: values[lam] for name, values in figures.items()}, flush=True)
    table = Table("lam", "weights", "distilled", "ratio", "reference", "s")
    for lam in arguments.lams:
        weights, distilled, reference, seconds = (figures[name][lam] for name in (
            "weights_error", "distil_error", "reference_error", "distil_s"))  # fmt: skip
        table.add_row(
            f"{lam:g}",
            f"{weights:.3f}",
            f"{distilled:.3f}",
            f"{distilled / weights:.2f}",
            f"{reference:.3f}",
            f"{seconds:.0f}",
        )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
