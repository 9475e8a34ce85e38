"""Train the autoencoder on random scenes: squared and absolute error, and a weak KL to N(0, 1).

Then, with the latents as they are, train the decoder alone on noise-free latents: it no longer has to blur what the
posterior's noise hides.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from deradiff.testbed.architecture import make_vae
from deradiff.testbed.descend import descend
from deradiff.testbed.scenes import Scene, draw, random_scene

_KL_WEIGHT = 3e-4
_JITTER = 0.03  # about the denoiser's own error; latents have unit scale


def train_vae(
    *,
    steps: int,
    batch: int = 16,
    peak_lr: float = 2e-3,
    seed: int = 0,
    report: Callable[[int, float], None],
) -> AutoencoderKL:
    """An autoencoder whose ``scaling_factor`` gives its latents unit variance; ``report`` gets step and loss."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=peak_lr, weight_decay=0)
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps, pct_start=0.1)

    def loss() -> Tensor:
        images = 2 * draw([random_scene(rng) for _ in range(batch)]) - 1
        posterior = vae.encode(images, return_dict=False)[0]
        rebuilt = 2 * decode(vae, posterior.sample()) - 1
        return mse_loss(rebuilt, images) + 0.5 * l1_loss(rebuilt, images) + _KL_WEIGHT * posterior.kl().mean() / 256

    descend(loss, optimizer, lr_scheduler, steps=steps, report=report)
    vae.eval().requires_grad_(False)
    latents = encode(vae, [random_scene(rng) for _ in range(512)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return vae


def sharpen_decoder(
    vae: AutoencoderKL,
    *,
    steps: int,
    batch: int = 16,
    peak_lr: float = 2e-3,
    seed: int = 0,
    report: Callable[[int, float], None],
) -> None:
    """Train the decoder of ``vae``, in place, on slightly jittered posterior means."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    decoding = ("post_quant_conv.", "decoder.")
    parameters = [parameter.requires_grad_() for name, parameter in vae.named_parameters() if name.startswith(decoding)]
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, weight_decay=0)
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps, pct_start=0.1)

    def loss() -> Tensor:
        scenes = [random_scene(rng) for _ in range(batch)]
        latents = encode(vae, scenes)
        latents += _JITTER * torch.randn_like(latents)
        rebuilt = decode(vae, latents)
        return l1_loss(rebuilt, draw(scenes))

    descend(loss, optimizer, lr_scheduler, steps=steps, report=report)
    vae.requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKL, scenes: Sequence[Scene], *, batch: int = 64) -> Tensor:
    """Latent means of scenes, not yet scaled, ``[N, 8, 8, 8]``."""
    chunks = [scenes[start : start + batch] for start in range(0, len(scenes), batch)]
    return torch.cat([vae.encode(2 * draw(chunk) - 1, return_dict=False)[0].mean for chunk in chunks])


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images of unscaled latents, ``[N, 3, 64, 64]``, in [0, 1] but for the decoder's overshoot."""
    return vae.decode(latents, return_dict=False)[0] / 2 + 0.5  # pyright: ignore[reportArgumentType]
