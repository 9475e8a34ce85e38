"""How near a bake comes to the realigned pipeline: weights alone, distilled, and with guidance folded in.

    python benchmarks/bake.py --json benchmarks/results/bake.json

On the embedded pipeline with its most strongly aligned anchor: mean relative error of final latents of 16 prompts that
no distillation saw, for the weights bake and for a LoRA distilled for `--seconds` (or `--iterations`), at each lam and
seed; then of LoRAs into which guidance was folded, against the guided realigned pipeline. Each figure is written as
soon as it is there.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from deradiff import realign, testbed
from deradiff.bake import BakeQuality, Distillation, LoraUpdate, bake_weights, distil, measure, write_lora
from deradiff.runs.recipe import Recipe

ANCHOR = "warmth-beta0.0125-seed0"
LAMS = (-0.5, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
FOLDED_LAM, GUIDANCES = 0.5, (2.0, 4.0)
RECIPE = Recipe(steps=25, batch_size=8)
MEASURED, TRAINED = testbed.prompts(16, seed=99), testbed.prompts(256, seed=5, drop=0.3)
TRAINING = [text for text in TRAINED if text not in MEASURED]


def quality(pipe: Any, anchor: str, lam: float, update: LoraUpdate, guidance: float, baked: float) -> BakeQuality:
    """A bake, sampled at guidance ``baked``, against the realigned pipeline at ``guidance``."""
    with TemporaryDirectory() as folder:
        write_lora(pipe, update, Path(folder), card={})
        return measure(pipe, anchor, lam, folder, MEASURED, RECIPE, guidance=guidance, baked_guidance=baked)


def distilled(pipe: Any, anchor: str, lam: float, seed: int, settings: Distillation) -> dict[str, Any]:
    """Figures of one distillation without guidance."""
    start, begun = bake_weights(pipe, anchor, lam), time.monotonic()
    result = distil(pipe, anchor, lam, start, TRAINING, settings, RECIPE, 1.0)
    seconds = time.monotonic() - begun
    weights = quality(pipe, anchor, lam, start, 1.0, 1.0)
    taken = quality(pipe, anchor, lam, result.update, 1.0, 1.0) if result.is_nearer else weights
    return {
        "lam": lam,
        "seed": seed,
        "reference_error": float(weights.changes.mean()),
        "weights_error": weights.error,
        "distil_error": taken.error,
        "kept": result.is_nearer,
        "held_out_before": float(result.before.mean()),
        "held_out_after": float(result.after.mean()),
        "steps": result.iterations,
        "distil_s": seconds,
    }


def folded(pipe: Any, anchor: str, lam: float, guidance: float, settings: Distillation) -> dict[str, Any]:
    """Figures of one distillation with guidance folded in."""
    start, begun = bake_weights(pipe, anchor, lam), time.monotonic()
    result = distil(pipe, anchor, lam, start, TRAINING, settings, RECIPE, guidance)
    seconds = time.monotonic() - begun
    weights = quality(pipe, anchor, lam, start, guidance, guidance)
    return {
        "lam": lam,
        "guidance": guidance,
        "reference_error": float(weights.changes.mean()),
        "weights_guided_error": weights.error,
        "weights_unguided_error": quality(pipe, anchor, lam, start, guidance, 1.0).error,
        "folded_error": quality(pipe, anchor, lam, result.trained, guidance, 1.0).error,
        "kept": result.is_nearer,
        "realigned_nfe_a_step": evaluations(pipe, anchor, lam, guidance),
        "folded_nfe_a_step": evaluations(pipe, anchor, 1.0, 1.0),
        "steps": result.iterations,
        "distil_s": seconds,
    }


def evaluations(pipe: Any, anchor: str, lam: float, guidance: float) -> float:
    """Network function evaluations an image and step of a realigned pipeline."""
    rows: list[int] = []
    counter = pipe.unet.register_forward_pre_hook(lambda network, inputs: rows.append(len(inputs[0])))
    with realign(pipe, anchor, lam):
        pipe(MEASURED[0], guidance_scale=guidance, num_inference_steps=2, output_type="latent")
    counter.remove()
    return sum(rows) / 2


def show(figures: dict[str, Any]) -> None:
    """Print the figures as tables."""
    for kind in ("runs", "folded"):
        names = list(figures[kind][0]) if figures[kind] else []
        table = Table(*names, title=kind)
        for run in figures[kind]:
            table.add_row(*(f"{run[name]:.4g}" for name in names))
        Console(width=200).print(table)


def main() -> None:
    """Distil at every lam and seed, then fold guidance in; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lams", type=float, nargs="*", default=LAMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--guidances", type=float, nargs="*", default=GUIDANCES)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--iterations", type=int, help="Instead of --seconds.")
    arguments = parser.parse_args()
    length = {"iterations": arguments.iterations} if arguments.iterations else {"seconds": arguments.seconds}
    pipe, anchor = testbed.load_pipeline(), str(testbed.anchor_path(ANCHOR))
    pipe.set_progress_bar_config(disable=True)
    figures: dict[str, Any] = {"weights_error": {}, "distil_error": {}, "distil_s": {}, "runs": [], "folded": []}

    def write() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=1) + "\n")

    for seed in arguments.seeds:
        for lam in arguments.lams:
            run = distilled(pipe, anchor, lam, seed, Distillation(seed=seed, **length))
            print(run, flush=True)
            figures["runs"].append(run)
            for name in ("weights_error", "distil_error", "distil_s"):  # of the first seed
                figures[name].setdefault(lam, run[name])
            write()
    for guidance in arguments.guidances:
        run = folded(pipe, anchor, FOLDED_LAM, guidance, Distillation(fold_guidance=True, **length))
        print(run, flush=True)
        figures["folded"].append(run)
        write()
    show(figures)


if __name__ == "__main__":
    main()
