"""Change lam while an image is being made: follow the reference early and the anchor late.

python examples/during_sampling.py
"""

from typing import Any

import torch

import deradiff
from deradiff import testbed

pipe = testbed.load_pipeline()

with deradiff.realign(pipe, testbed.anchor_path(), lam=0.0) as handle:

    def turn_up(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        handle.lam = step / 20
        return tensors

    image = pipe(
        testbed.DEMO_PROMPTS[1],
        num_inference_steps=20,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=turn_up,
    ).images[0]

image.save("during_sampling.png")
print("during_sampling.png: lam rose from 0 to 0.95")
