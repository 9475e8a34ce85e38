"""Preprocessing of pixels for vision towers, equal to the published code's, with PIL and torch alone.

Published code starts from PIL images, so pixels are first rounded to 8 bits.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

# OpenAI's, which most towers use (openai/CLIP, clip/clip.py)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Convert pixels ``[batch, 3, height, width]`` in [0, 1] to images of 8 bits."""
    levels = (images.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in levels]


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an image to pixels ``[3, height, width]`` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def normalize_pixels(pixels: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Standardise pixels ``[..., 3, height, width]`` by the mean and standard deviation of each channel."""
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def floor_half(margin: int) -> int:
    """The start of a centre crop in transformers."""
    return margin // 2


def round_half(margin: int) -> int:
    """The start of a centre crop in torchvision, which rounds halves to even."""
    return round(margin / 2)


def resize_and_crop(
    image: Image.Image,
    size: int,
    start: Callable[[int], int],
    crop: int | None = None,
    resample: int = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Resize the shorter side to ``size`` and crop the centre, a square of ``crop`` pixels (default: ``size``).

    The longer side is rounded down, as in torchvision's ``Resize`` and transformers.
    """
    crop = crop or size
    short = min(image.size)
    wide, high = (size if side == short else int(size * side / short) for side in image.size)
    left, top = start(wide - crop), start(high - crop)
    return image.resize((wide, high), Image.Resampling(resample)).crop((left, top, left + crop, top + crop))


def preprocess_by_config(images: Sequence[Image.Image], config: Mapping[str, Any]) -> Tensor:
    """Pixels ``[batch, 3, size, size]`` by a CLIP's ``preprocessor_config.json``, which has two formats of sizes."""
    size, crop = config["size"], config["crop_size"]
    size = size["shortest_edge"] if isinstance(size, Mapping) else size
    crop = crop["height"] if isinstance(crop, Mapping) else crop
    cut = [resize_and_crop(image, size, floor_half, crop, config["resample"]) for image in images]
    return normalize_pixels(torch.stack([to_tensor(image) for image in cut]), config["image_mean"], config["image_std"])


def resize_and_pad(image: Image.Image, size: int) -> Tensor:
    """Resize the longer side to ``size`` and pad the shorter one with black: pixels ``[3, size, size]``.

    HPSv2's ``ResizeMaxSize`` resizes floats, so bicubic overshoot is neither rounded nor clipped. Antialiasing is on,
    as in torchvision since 0.17. Unlike HPSv2, this also pads images whose longer side has the size already.
    """
    pixels = to_tensor(image)[None]
    scale = size / max(image.size)
    high, wide = (max(1, round(side * scale)) for side in pixels.shape[-2:])
    if scale != 1:
        pixels = interpolate(pixels, (high, wide), mode="bicubic", align_corners=False, antialias=True)
    left, top = (size - wide) // 2, (size - high) // 2
    return pad(pixels, (left, size - wide - left, top, size - high - top))[0]


def downsample(pixels: Tensor, side: int) -> Tensor:
    """Average pixels ``[batch, channels, height, width]`` over areas, so that the longer side is at most ``side``.

    Sizes and single-pixel noise then matter less. Smaller images stay as they are.
    """
    scale = side / max(pixels.shape[-2:])
    if scale >= 1:
        return pixels
    high, wide = (max(1, round(length * scale)) for length in pixels.shape[-2:])
    return interpolate(pixels, (high, wide), mode="area")
