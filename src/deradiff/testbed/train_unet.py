"""Train the denoiser on cached latents: eps-prediction, 10% of captions dropped, averaged weights.

The squared error is weighted by min(SNR, 5)/SNR (Hang et al. 2023, arXiv 2303.09556): captions take effect at high
noise, while low noise dominates the plain error.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from deradiff.testbed.architecture import SCHEDULE, TOKENS, make_noise, make_unet
from deradiff.testbed.captions import random_caption
from deradiff.testbed.descend import descend
from deradiff.testbed.scenes import random_scene
from deradiff.testbed.train_vae import encode

_CAPTION_DROP = 0.1
_SNR_CAP = 5.0


@torch.no_grad()
def embed(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, captions: Sequence[str]) -> Tensor:
    """The caption embeddings of the denoiser, ``[batch, TOKENS, width]``."""
    tokens = tokenizer(
        list(captions), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return encoder(tokens).last_hidden_state


def train_unet(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    *,
    steps: int,
    scenes: int = 24_000,
    batch: int = 64,
    peak_lr: float = 1.5e-3,
    seed: int = 0,
    report: Callable[[int, float], None],
) -> UNet2DConditionModel:
    """Train and freeze a denoiser with averaged weights; ``report`` receives step and loss."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pool = [random_scene(rng) for _ in range(scenes)]
    latents = encode(vae, pool) * vae.config["scaling_factor"]
    unet, noise = make_unet(), make_noise()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=peak_lr, weight_decay=1e-3, betas=(0.9, 0.99))
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps, pct_start=0.05)
    average = EMAModel(unet.parameters(), decay=0.998, use_ema_warmup=True, power=0.8)

    def loss() -> Tensor:
        chosen = rng.integers(scenes, size=batch)
        captions = ["" if rng.random() < _CAPTION_DROP else random_caption(pool[index], rng) for index in chosen]
        clean = latents[chosen]
        eps, t = torch.randn_like(clean), torch.randint(SCHEDULE["num_train_timesteps"], (batch,))
        x_t = noise.add_noise(clean, eps, t)  # pyright: ignore[reportArgumentType]
        error = (unet(x_t, t, embed(tokenizer, encoder, captions)).sample - eps).square().mean((1, 2, 3))
        snr = compute_snr(noise, t)
        return (error * snr.clamp(max=_SNR_CAP) / snr).mean()

    def update_average() -> None:
        average.step(unet.parameters())

    descend(loss, optimizer, lr_scheduler, steps=steps, report=report, after_step=update_average)
    average.copy_to(unet.parameters())
    return unet.eval().requires_grad_(False)
