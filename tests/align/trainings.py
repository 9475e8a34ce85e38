"""A tiny pipeline to train, and preferences in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.zoo import ZOO

from deradiff.align import Pairs, Settings, read_pairs

PROMPTS = ("a red circle", "a large blue square", "two green lines")
SIDE = 32


def pipeline(name: str = "sd") -> Any:
    pipe: Any = ZOO[name].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def preferences(folder: Path, pairs: int = 6) -> Pairs:
    """Random images, in a folder created once."""
    if not (folder / "pairs.jsonl").exists():
        rng, rows = np.random.default_rng(0), []
        folder.mkdir(parents=True)
        for pair in range(pairs):
            for kind in ("chosen", "rejected"):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., 0 if kind == "chosen" else 2] = 255  # red is preferred to blue
                Image.fromarray(pixels).save(folder / f"{kind}{pair}.png")
            row = {"prompt": PROMPTS[pair % 3], "chosen": f"chosen{pair}.png", "rejected": f"rejected{pair}.png"}
            rows.append(row | {"probability": 1 - 0.05 * pair})
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pairs(folder)


def settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {"beta": 0.01, "steps": 6, "train_batch_size": 4, "learning_rate": 1e-3, "rank": 2}
    return Settings(**given | changes)
