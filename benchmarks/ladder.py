"""Train the models that benchmarks/emulation.py compares: one reward, six betas, two training seeds.

    python benchmarks/ladder.py [--seeds 0,1] [--out FOLDER]

All learn from the same preferences: samples of the embedded pipeline, judged by warmth, of captions that leave size and
background open, where warmth has something to prefer. Takes 7 minutes a model on one CPU core; those that are in
benchmarks/ladder/ already are kept, and a stopped training goes on in --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from deradiff import testbed
from deradiff.align import Pairs, Settings, align
from deradiff.align.self_label import self_label
from deradiff.cli.common import progress

LADDER = Path(__file__).parent / "ladder"
BETAS, SEEDS = (0.8, 0.4, 0.2, 0.1, 0.05, 0.025), (0, 1)
CAPTIONS, IMAGES = 192, 12
TRAINING: dict[str, Any] = {
    "steps": 600,
    "train_batch_size": 16,
    "draws": 4,
    "learning_rate": 2e-3,
    "ema": 0.98,
    "rank": 4,
    "target_modules": (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out"),
        *("ff.net.0.proj", "ff.net.2", "conv1", "conv2"),
    ),
}
WEIGHTS = "pytorch_lora_weights.safetensors"


def preferences(folder: Path) -> Pairs:
    """Own samples of the embedded pipeline, each two of a caption a pair."""
    pipe, captions = testbed.load_pipeline(), testbed.prompts(CAPTIONS, drop=1.0)
    with progress("own samples", IMAGES * CAPTIONS) as advance:
        return self_label(
            pipe, captions, testbed.warmth, folder, images=IMAGES, steps=20, guidance=1.0, advance=advance
        )


def train(pairs: Pairs, beta: float, seed: int, work: Path) -> None:
    """Train one model, and keep it in half precision."""
    settings = Settings(beta=beta, seed=seed, **TRAINING)
    card = {"reference": "deradiff.testbed", "reward": "deradiff.testbed.warmth"}
    with progress(work.name, settings.steps) as advance:
        align(testbed.load_pipeline(), pairs, work, settings, card=card, advance=lambda step: advance(1))
    with safe_open(work / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    halved = {name: weight.half() for name, weight in load_file(work / WEIGHTS).items()}
    target = LADDER / work.name
    target.mkdir(parents=True, exist_ok=True)
    (target / WEIGHTS).write_bytes(save(halved, metadata))


def average(beta: float, folder: Path) -> Path:
    """The mean of what a beta's training seeds change, as one LoRA of their ranks' sum; kept where it was made."""
    made = folder / f"warmth-beta{beta:g}-mean"
    if (
        made / WEIGHTS
    ).exists():  # made anew its metadata may stand in another order, so that sweeps take it for another
        return made
    sources = [LADDER / f"warmth-beta{beta:g}-seed{seed}" / WEIGHTS for seed in SEEDS]
    with safe_open(sources[0], "pt") as file:
        metadata = file.metadata()
    one, other = (load_file(source) for source in sources)
    weights = {
        name: torch.cat([one[name], other[name]], 0) if "lora_A" in name else torch.cat([one[name], other[name]], 1) / 2
        for name in one
    }
    config = json.loads(metadata["lora_adapter_metadata"])
    config |= {"unet.r": 2 * config["unet.r"], "unet.lora_alpha": 2 * config["unet.lora_alpha"]}
    card = json.loads(metadata["deradiff"]) | {"seed": -1}  # of none alone
    made.mkdir(parents=True, exist_ok=True)
    metadata |= {"lora_adapter_metadata": json.dumps(config), "deradiff": json.dumps(card)}
    (made / WEIGHTS).write_bytes(save(weights, metadata))
    return made


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="training seeds, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"))
    given = parser.parse_args()
    torch.set_num_threads(1)  # fastest on networks this small
    wanted = {f"warmth-beta{beta:g}-seed{seed}": (beta, int(seed)) for seed in given.seeds.split(",") for beta in BETAS}
    missing = {name: own for name, own in wanted.items() if not (LADDER / name / WEIGHTS).exists()}
    if missing:
        pairs = preferences(given.out / "pairs")
        for name, (beta, seed) in missing.items():
            train(pairs, beta, seed, given.out / name)


if __name__ == "__main__":
    main()
