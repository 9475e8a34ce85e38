"""Realign a pipeline you already have, in one line.

    python examples/one_line.py

draws one scene with the embedded pipeline at five strengths.  With a pipeline of your own, say Stable Diffusion 1.5 and
its Diffusion-DPO checkpoint, only the first two lines differ:

    pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
    aligned = "mhdang/dpo-sd1.5-text2image-v1"
"""

import torch
from PIL import Image

import deradiff
from deradiff import testbed

pipe = testbed.load_pipeline()
aligned = testbed.anchor_path()

lams = [0.0, 0.5, 1.0, 2.0, 4.0]
with deradiff.realign(pipe, aligned, lam=lams):  # one lam per image of the batch
    images = pipe(
        [testbed.DEMO_PROMPTS[0]] * len(lams),
        num_inference_steps=20,
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(0) for _ in lams],
    ).images

row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
for place, image in enumerate(images):
    row.paste(image, (place * image.width, 0))
row.save("one_line.png")
print("one_line.png: the same scene at lam =", lams)
