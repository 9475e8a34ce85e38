"""Images as the latents that a pipeline's denoiser works on."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from deradiff.errors import AlignError


@torch.no_grad()
def encode(pipe: Any, image: Image.Image, shape: tuple[int, ...], height: int, width: int) -> Tensor:
    """The latent of an image, scaled to cover ``height`` x ``width`` pixels and cropped at its centre.

    Args:
        pipe: the pipeline; its VAE encodes, its own packing is applied where it has one.
        image: RGB.
        shape: of the denoiser's sample without its row, which the latent must have.
        height: pixels.
        width: pixels.

    Raises:
        AlignError: the pipeline has no VAE that encodes, or its latents don't fit the denoiser.
    """
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "encode"):
        raise AlignError(
            f"{type(pipe).__name__} has no VAE that encodes, so pictures can't be learnt from; use --self-label"
        )
    pixels = pipe.image_processor.preprocess(image, height=height, width=width, resize_mode="crop")
    if getattr(vae.config, "force_upcast", False) and vae.dtype != torch.float32:  # overflows in half precision
        vae.to(torch.float32)
    latent = _scaled(vae, _encoded(vae, pixels.to(vae.device, vae.dtype)))
    if hasattr(pipe, "_pack_latents"):
        planes = latent.squeeze(2) if latent.ndim == 5 else latent
        latent = pipe._pack_latents(planes, *planes.shape)
    if tuple(latent.shape[1:]) != shape:
        raise AlignError(
            f"{type(vae).__name__} encodes {height} x {width} pixels as {tuple(latent.shape[1:])}, but the denoiser "
            f"takes {shape}; this pipeline can be taught on its own samples only: use --self-label"
        )
    return latent[0].float().cpu()


def _encoded(vae: Any, pixels: Tensor) -> Tensor:
    if "latents_mean" in vae.config and vae.config.latents_mean is not None and "z_dim" in vae.config:
        pixels = pixels.unsqueeze(2)  # video VAEs: one frame
    output = vae.encode(pixels)
    posterior = getattr(output, "latent_dist", None)
    if posterior is not None:
        return posterior.mode()
    return output.latent if hasattr(output, "latent") else output.latents


def _scaled(vae: Any, latent: Tensor) -> Tensor:
    config = vae.config
    if "z_dim" in config and config.get("latents_mean") is not None:
        mean, std = (
            torch.tensor(config[name]).to(latent).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        return (latent - mean) / std
    return (latent - (config.get("shift_factor") or 0.0)) * config.get("scaling_factor", 1.0)
