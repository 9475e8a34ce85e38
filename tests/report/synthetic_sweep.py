"""A synthetic sweep that over-optimises: warmth saturates, faithfulness holds to lam 1 and then collapses."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from deradiff.results import Results

LAMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
PROMPTS = (
    "a red circle left of a blue square on a white background",
    "a green triangle above a yellow circle on a grey background",
    "a blue star on a green background",
    "a purple square right of an orange triangle on a white background",
    "a yellow circle on a blue background",
    "an orange star below a green square on a black background",
    "a white triangle on a purple background",
    "a black square above a white circle on a grey background",
    "a red star right of a blue triangle on a yellow background",
    '<script>window.hacked = true</script><img src=x onerror="window.hacked = true"> "quoted" & {{ 7 * 7 }}',
)
SEEDS = (11, 12, 13, 14)


def synthetic(
    folder: Path, *, size: int = 64, prompts: tuple[str, ...] = PROMPTS, seeds: tuple[int, ...] = SEEDS
) -> Results:
    """Prompts x seeds x 9 lams with drawn images: shapes that turn red and drift out of shape with lam."""
    rng = np.random.default_rng(1)
    shape = (len(prompts), len(seeds), len(LAMS))
    lams = np.array(LAMS)
    pair = rng.normal(size=(*shape[:2], 1))
    level = rng.normal(size=(shape[0], 1, 1))
    warmth = 0.35 + 0.5 * (1 - np.exp(-0.9 * lams)) + 0.05 * level + 0.03 * pair
    faithful = 0.94 - 0.24 * np.clip(lams - 1, 0, 3) + 0.02 * level + 0.02 * pair
    scores = {"warmth": warmth, "faithfulness": faithful, "sharpness": 0.5 + 0.02 * lams + 0.05 * level}
    kl = 0.5 * lams**2 * 24 * np.exp(0.2 * pair)
    images = np.empty(shape, dtype=object)
    for place in np.ndindex(shape):
        file = folder / "-".join(map(str, place))
        images[place] = draw(file.with_suffix(".png"), *place, size=size)
    return Results(
        prompts=prompts,
        seeds=seeds,
        lams=LAMS,
        scores={name: table + 0.03 * rng.normal(size=shape) for name, table in scores.items()},
        path_kl=kl,
        images=images,
        anchor_beta=0.05,
        details={
            "model": "synthetic shapes",
            "scheduler": "EulerAncestralDiscreteScheduler, 25 steps",
            "guidance": "none",
        },
    )


def draw(file: Path, prompt: int, seed: int, lam: int, *, size: int) -> Path:
    rng = np.random.default_rng([prompt, seed])
    ground, shade = rng.integers(30, 250, size=(2, 3))
    red = np.array([200, 40, 20])
    share = lam / len(LAMS)
    image = Image.new("RGB", (size, size), tuple(((1 - share) * ground + share * red).astype(int).tolist()))
    x, y = rng.integers(size // 8, size // 2, size=2).tolist()
    side = size // 3 + lam * size // 60
    shape = ImageDraw.Draw(image)
    paint = tuple(((1 - share / 2) * shade + share / 2 * red).astype(int).tolist())
    (shape.ellipse if prompt % 2 else shape.rectangle)((x, y, x + side, y + side), fill=paint)
    image.save(file)
    return file
