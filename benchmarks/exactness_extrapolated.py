"""Beyond lam = 1 on the embedded pipeline: plain, damped where the anchor denoises worse, and weighted by particles.

    python benchmarks/exactness_extrapolated.py [--json FILE] [--out FOLDER]

Damping takes lam(t) = 1 + (lam − 1) min(1, v_ref(t) / v_aligned(t)), where v is each model's denoising error on its own
samples. All are held against the optimum at beta / lam, as in exactness_trained.py, whose samples in --out are used.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exactness_distance import energy_distance
from exactness_trained import LADDER, POOL, SEEDS, STEPS, Arms, name, pictures, told
from rich import print as show
from torch import Tensor

import deradiff
from deradiff import testbed
from deradiff.realignment import Handle
from deradiff.runs.models import set_scheduler
from deradiff.sampling import noise_seed

ANCHORS, LAMS = (0.8, 0.2, 0.1), (2.0, 4.0)
OWN = 24  # captions whose samples tell denoising errors
SETTINGS: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": 1.0}


def drawn(pipe: Any, prompt: str, count: int, **settings: Any) -> Tensor:
    """``count`` images of a prompt."""
    rows = [torch.Generator().manual_seed(noise_seed(prompt, seed)) for seed in range(count)]
    given = {**SETTINGS, "output_type": "pt", **settings}
    return pipe(prompt, num_images_per_prompt=count, generator=rows, **given).images


@torch.no_grad()
def denoising_errors(pipe: Any, handle: Handle) -> Tensor:
    """v_aligned / v_ref at each step, (STEPS,): mean squared errors of eps on each model's own samples."""
    prompts, errors = testbed.prompts(OWN, seed=9000, drop=1.0), []
    for handle.lam in (0.0, 1.0):
        own = [drawn(pipe, prompt, 4, output_type="latent") for prompt in prompts]
        pipe.scheduler.set_timesteps(STEPS)
        clean = torch.cat(own)
        states = torch.cat([pipe.encode_prompt(p, "cpu", 4, False)[0] for p in prompts])
        for place, (t, sigma) in enumerate(zip(pipe.scheduler.timesteps, pipe.scheduler.sigmas, strict=False)):
            eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(place))
            x_t = (clean + sigma * eps) / (sigma**2 + 1) ** 0.5
            errors.append((pipe.unet(x_t, t, encoder_hidden_states=states).sample - eps).square().mean())
    reference, aligned = torch.stack(errors).reshape(2, STEPS)
    return aligned / reference


def damped(handle: Handle, lam: float, ratio: Tensor) -> dict[str, Any]:
    """What makes a call of the pipeline damped: lam set before each step."""
    lams = (1 + (lam - 1) / ratio.clamp(min=1)).tolist()

    def before_next(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        handle.lam = lams[(step + 1) % STEPS]
        return {}

    handle.lam = lams[0]
    return {"callback_on_step_end": before_next}


def measured(out: Path) -> Iterator[dict[str, Any]]:
    """One row an anchor, lam and way."""
    arms = Arms(out)
    pipe = arms.pipe
    pool = arms.swept("pool", name(0.1, 0), lams=[0.0], seeds=range(1000, 1000 + POOL), batch_size=96)
    rewards = pool.scores["warmth"][:, :, 0]
    everyone = [pictures(pool, prompt, 0.0) for prompt in range(len(pool.prompts))]
    set_scheduler(pipe, "EulerAncestralDiscreteScheduler")
    for beta in ANCHORS:
        with deradiff.realign(pipe, str(LADDER / name(beta, 0)), 0.0) as handle:
            ratio = denoising_errors(pipe, handle)
            for lam in LAMS:
                weights = torch.from_numpy(rewards * lam / beta).softmax(dim=1)
                for way in ("plain", "damped", "8 particles"):
                    handle.lam, handle.particles = lam, 8 if way == "8 particles" else 1
                    images = []
                    for prompt in pool.prompts:
                        more = damped(handle, lam, ratio) if way == "damped" else {}
                        images.append(drawn(pipe, prompt, SEEDS, **more))
                    texts = [prompt for prompt in pool.prompts for _ in range(SEEDS)]
                    gaps = [
                        energy_distance(own.flatten(1).double(), everyone[place], weights[place])
                        for place, own in enumerate(images)
                    ]
                    yield {
                        "anchor": name(beta, 0),
                        "lam": lam,
                        "way": way,
                        "energy_distance": told(np.array(gaps)),
                        "warmth": float(testbed.warmth(torch.cat(images), texts).mean()),
                        "optimum": float((weights.numpy() * rewards).sum(axis=1).mean()),
                        "faithfulness": float(testbed.faithfulness(torch.cat(images), texts).mean()),
                        "denoising_error_ratio": [round(value, 2) for value in ratio.tolist()],
                    }


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/exactness"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in measured(given.out):
        rows.append(row)
        show(row)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
