"""What mixing step by step leaves out, put back by particles: one prompt, plain and corrected, and what paths tell.

python examples/particles.py
"""

import torch
from PIL import Image

import deradiff
from deradiff import testbed

LAM, SEEDS = 0.25, 8

pipe = testbed.load_pipeline()
row = Image.new("RGB", (64 * SEEDS, 128))

with deradiff.realign(pipe, testbed.anchor_path("warmth-beta0.05-seed0"), LAM) as handle, handle.recording():
    for place, particles in enumerate((1, 8)):
        handle.particles = particles
        images = pipe(
            "a blue square",
            num_images_per_prompt=SEEDS,
            num_inference_steps=20,
            guidance_scale=1.0,
            generator=[torch.Generator().manual_seed(seed) for seed in range(SEEDS)],
        ).images
        for column, image in enumerate(images):
            row.paste(image, (64 * column, 64 * place))
        paths = handle.paths
        print(f"{particles} particle(s): path KL {paths.path_kl.mean():.2f} nats", end="")
        print("" if paths.distinct is None else f", {paths.distinct.double().mean():.1f} distinct ancestors")

row.save("particles.png")
print(f"particles.png: above plain, below corrected, at lam = {LAM}")
