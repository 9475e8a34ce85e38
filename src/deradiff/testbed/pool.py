"""Samples of the reference with their rewards: what the anchors are trained on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from deradiff.testbed.captions import random_caption
from deradiff.testbed.judge import warmth
from deradiff.testbed.scenes import random_scene
from deradiff.testbed.train_unet import embed
from deradiff.testbed.train_vae import decode

SAMPLING_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Samples of the reference: latents ``[P, K, C, 8, 8]``, rewards ``[P, K]`` and embedded prompts ``[P, ...]``."""

    latents: Tensor
    rewards: Tensor
    embeddings: Tensor


@torch.no_grad()
def sample_pool(
    pipe: StableDiffusionPipeline, *, prompts: int = 192, images: int = 8, seed: int = 0, report: Callable[[int], None]
) -> Pool:
    """Draw ``images`` samples of each of ``prompts`` random captions; ``report`` gets the number of prompts done."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    captions = [random_caption(random_scene(rng), rng) for _ in range(prompts)]
    latents, rewards = [], []
    for done, caption in enumerate(captions):
        (sample,) = pipe(
            caption,
            num_images_per_prompt=images,
            num_inference_steps=SAMPLING_STEPS,
            guidance_scale=1.0,
            generator=generator,
            output_type="latent",
            return_dict=False,
        )[:1]
        pictures = decode(pipe.vae, sample / pipe.vae.config["scaling_factor"])
        latents.append(sample)
        rewards.append(warmth(pictures.clamp(0, 1), [caption] * images))
        report(done + 1)
    embeddings = embed(pipe.tokenizer, pipe.text_encoder, captions)
    return Pool(latents=torch.stack(latents), rewards=torch.stack(rewards), embeddings=embeddings)
