"""The inputs of training, computed once and cached on disk: latents of images and denoiser inputs of prompts."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from deradiff.align.captured_inputs import CapturedInputs, capture_inputs
from deradiff.align.checkpoint import load_latent, load_torch, save_torch
from deradiff.align.pairs import Pairs, latent_file
from deradiff.align.settings import Settings
from deradiff.errors import AlignError
from deradiff.writing import write_whole

_MAX_CACHED_BYTES = 2 << 30  # of files held in memory


class Cache:
    """A folder of latents and denoiser inputs of one pipeline at one image size.

    Args:
        folder: created if missing; files that exist are not computed again.
        pipe: the pipeline.
        denoiser: of the pipeline.
        settings: size and guidance.
    """

    def __init__(self, folder: Path, pipe: Any, denoiser: nn.Module, settings: Settings) -> None:
        self.folder, self.pipe, self.denoiser, self.settings = folder, pipe, denoiser, settings
        self.cached, self.cached_bytes = dict[Path, Any](), 0

    @torch.no_grad()
    def fill(self, pairs: Pairs, advance: Callable[[int], None] = lambda count: None) -> None:
        """Compute what is missing; ``advance`` receives 1 after each prompt and image.

        Raises:
            AlignError: the pipeline can't be trained, an image can't be encoded, or a file can't be written.
        """
        images = dict.fromkeys(key for pair in pairs.pairs for key in (pair.chosen, pair.rejected))
        prompts = list(dict.fromkeys(pair.prompt for pair in pairs.pairs))
        for prompt in prompts:
            if not (path := self._inputs_file(prompt)).exists():
                save_torch(path, vars(self._capture(prompt)))
            advance(1)
        shape = self.inputs(prompts[0]).shape
        for key in images:
            if not (path := latent_file(self.folder, key)).exists():
                latent = pairs.latent(key)
                if latent is None or tuple(latent.shape) != shape:
                    latent = encode_image(self.pipe, pairs.image(key), shape, *self._size(shape))
                write_whole(path, to_safetensors({"latent": latent.contiguous()}), AlignError)
            advance(1)

    def inputs(self, prompt: str) -> CapturedInputs:
        """The denoiser inputs of a cached prompt."""
        return self._read(self._inputs_file(prompt), _load_inputs)

    def latent(self, key: str) -> Tensor:
        """The latent of a cached image, without a batch dimension."""
        return self._read(latent_file(self.folder, key), load_latent)

    def _capture(self, prompt: str) -> CapturedInputs:
        size = {"height": self.settings.height, "width": self.settings.width}
        return capture_inputs(self.pipe, self.denoiser, prompt, guidance_scale=self.settings.guidance, **size)

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if self.settings.height is not None and self.settings.width is not None:
            return self.settings.height, self.settings.width
        scale = int(self.pipe.vae_scale_factor)
        if len(shape) == 3:
            return shape[1] * scale, shape[2] * scale
        side = int(self.pipe.default_sample_size) * scale  # packed latents don't have a shape in space
        return side, side

    def _inputs_file(self, prompt: str) -> Path:
        return self.folder / "conditions" / f"{sha256(prompt.encode()).hexdigest()}.pt"

    def _read(self, path: Path, read: Callable[[Path], Any]) -> Any:
        if path not in self.cached:
            self.cached_bytes += path.stat().st_size
            while self.cached and self.cached_bytes > _MAX_CACHED_BYTES:
                oldest = next(iter(self.cached))
                self.cached_bytes -= oldest.stat().st_size
                del self.cached[oldest]
            self.cached[path] = read(path)
        return self.cached[path]


def _load_inputs(path: Path) -> CapturedInputs:
    remedy = "delete it to have it made again"
    try:
        return CapturedInputs(**load_torch(path, remedy))
    except TypeError as error:
        raise AlignError(f"{path} is damaged ({error}); {remedy}") from error


@torch.no_grad()
def encode_image(pipe: Any, image: Image.Image, shape: tuple[int, ...], height: int, width: int) -> Tensor:
    """The latent of an image that is scaled to cover ``height`` x ``width`` pixels and cropped at its centre.

    Args:
        pipe: the pipeline, whose VAE encodes the image and whose packing is applied, if it has one.
        image: RGB.
        shape: expected shape of the latent: that of the denoiser's sample, without the batch dimension.
        height: pixels.
        width: pixels.

    Raises:
        AlignError: the pipeline has no VAE with an encoder, or its latents don't fit the denoiser.
    """
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "encode"):
        raise AlignError(
            f"{type(pipe).__name__} has no VAE encoder: it can be trained on its own samples only; use --self-label"
        )
    pixels = pipe.image_processor.preprocess(image, height=height, width=width, resize_mode="crop")
    if getattr(vae.config, "force_upcast", False) and vae.dtype != torch.float32:  # it overflows in half precision
        vae.to(torch.float32)
    latent = _scale(vae, _encode(vae, pixels.to(vae.device, vae.dtype)))
    if hasattr(pipe, "_pack_latents"):
        planes = latent.squeeze(2) if latent.ndim == 5 else latent
        latent = pipe._pack_latents(planes, *planes.shape)
    if tuple(latent.shape[1:]) != shape:
        raise AlignError(
            f"{type(vae).__name__} encodes {height} x {width} pixels as {tuple(latent.shape[1:])}, but the denoiser "
            f"takes {shape}; this pipeline can be trained on its own samples only: use --self-label"
        )
    return latent[0].float().cpu()


def _encode(vae: Any, pixels: Tensor) -> Tensor:
    if "latents_mean" in vae.config and vae.config.latents_mean is not None and "z_dim" in vae.config:
        pixels = pixels.unsqueeze(2)  # video VAEs: one frame
    output = vae.encode(pixels)
    posterior = getattr(output, "latent_dist", None)
    if posterior is not None:
        return posterior.mode()
    return output.latent if hasattr(output, "latent") else output.latents


def _scale(vae: Any, latent: Tensor) -> Tensor:
    config = vae.config
    if "z_dim" in config and config.get("latents_mean") is not None:
        mean, std = (
            torch.tensor(config[name]).to(latent).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        return (latent - mean) / std
    return (latent - (config.get("shift_factor") or 0.0)) * config.get("scaling_factor", 1.0)
