"""From pixels to what a vision tower reads, as published code does it, by PIL and torch alone.

Published code starts from PIL images, so pixels are first rounded to 8 bits.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

# OpenAI's, of which most towers are descendants (openai/CLIP, clip/clip.py)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Pictures of 8 bits from pixels (N, 3, H, W) in [0, 1]."""
    levels = (images.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in levels]


def to_tensor(picture: Image.Image) -> Tensor:
    """Pixels (3, H, W) in [0, 1] of a picture."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def normalised(pixels: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Pixels (..., 3, H, W) less the mean, in units of the deviation, channel by channel."""
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def floored(margin: int) -> int:
    """Where transformers lets a centre crop start."""
    return margin // 2


def rounded(margin: int) -> int:
    """Where torchvision lets a centre crop start: at halves it rounds to even."""
    return round(margin / 2)


def cropped(
    picture: Image.Image,
    size: int,
    start: Callable[[int], int],
    crop: int | None = None,
    resample: int = Image.Resampling.BICUBIC,
) -> Image.Image:
    """A picture resized to a shorter side of ``size`` and cut to its centre, a square of ``crop``, default ``size``.

    The longer side is cut off to whole pixels, as torchvision's ``Resize`` and transformers do it.
    """
    crop = crop or size
    short = min(picture.size)
    wide, high = (size if side == short else int(size * side / short) for side in picture.size)
    left, top = start(wide - crop), start(high - crop)
    return picture.resize((wide, high), Image.Resampling(resample)).crop((left, top, left + crop, top + crop))


def by_config(pictures: Sequence[Image.Image], config: Mapping[str, Any]) -> Tensor:
    """Pixels (N, 3, S, S) as a CLIP's ``preprocessor_config.json`` says, in which sizes have two spellings."""
    size, crop = config["size"], config["crop_size"]
    size = size["shortest_edge"] if isinstance(size, Mapping) else size
    crop = crop["height"] if isinstance(crop, Mapping) else crop
    cut = [cropped(picture, size, floored, crop, config["resample"]) for picture in pictures]
    return normalised(torch.stack([to_tensor(picture) for picture in cut]), config["image_mean"], config["image_std"])


def padded(picture: Image.Image, size: int) -> Tensor:
    """Pixels (3, size, size) of a picture resized to a longer side of ``size``, black on both sides of the other.

    HPSv2's ``ResizeMaxSize``, which resizes floats and so neither rounds nor clips what bicubic overshoots; with
    antialiasing, torchvision's default since 0.17.  A picture that has the size already is padded as well, where
    HPSv2 forgets to.
    """
    pixels = to_tensor(picture)[None]
    scale = size / max(picture.size)
    high, wide = (max(1, round(side * scale)) for side in pixels.shape[-2:])
    if scale != 1:
        pixels = interpolate(pixels, (high, wide), mode="bicubic", align_corners=False, antialias=True)
    left, top = (size - wide) // 2, (size - high) // 2
    return pad(pixels, (left, size - wide - left, top, size - high - top))[0]
