"""Lams side by side: latents that share their noise, and the picture of what became of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .errors import RealignError

GAP = 8
"""Pixels between the images of a grid."""


def repeat_latent(latent: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Each image of a latent ``count`` times in a row, all copies from the same noise.

    ``batch_index`` is what ComfyUI's samplers draw the noise of a row by; rows that share it share the noise that
    sampling starts from.
    """
    samples: Tensor = latent["samples"]
    indices = latent.get("batch_index") or list(range(len(samples)))
    repeated = {**latent, "samples": samples.repeat_interleave(count, 0)}
    repeated["batch_index"] = [index for index in indices for _ in range(count)]
    mask = latent.get("noise_mask")
    if mask is not None and len(mask) == len(samples):
        repeated["noise_mask"] = mask.repeat_interleave(count, 0)
    return repeated


def arrange_images(batches: Sequence[Tensor], n_lams: int) -> Tensor:
    """Images ``[rows, lams, height, width, channels]`` of a grid.

    Args:
        batches: one batch that holds the lams of each image in a row, or one batch of images per lam.
        n_lams: how many lams each image was made at.

    Raises:
        RealignError: the number of images doesn't fit the number of lams.
    """
    if len(batches) == n_lams and len({batch.shape for batch in batches}) == 1:
        return torch.stack(list(batches), 1)
    images = sum(len(batch) for batch in batches)
    if len(batches) != 1 or images % n_lams:
        raise RealignError(f"There are {images} images and {n_lams} lams; give every image at each of the lams.")
    return batches[0].unflatten(0, (-1, n_lams))


def shortest_period(lams: Sequence[float]) -> int:
    """After how many lams a list starts again: lams per image of a batch that holds several images."""
    periods = (p for p in range(1, len(lams) + 1) if len(lams) % p == 0)
    return next(p for p in periods if tuple(lams) == tuple(lams[:p]) * (len(lams) // p))


def draw_grid(images: Tensor, labels: Sequence[str]) -> Tensor:
    """One picture: a row per image, a column per lam, the label above each column.

    Args:
        images: ``[rows, columns, height, width, 3]`` in [0, 1].
        labels: one per column.

    Returns:
        ``[1, height, width, 3]`` in [0, 1].
    """
    rows, columns, height, width, _ = images.shape
    font = _fitting_font(labels, width)
    header = round(font.getbbox("lam")[3]) + 2 * GAP
    grid = torch.ones(header + rows * (height + GAP), columns * (width + GAP) + GAP, 3)
    for row in range(rows):
        for column in range(columns):
            top, left = header + row * (height + GAP), GAP + column * (width + GAP)
            grid[top : top + height, left : left + width] = images[row, column, ..., :3].cpu()
    picture = Image.fromarray((grid.clamp(0, 1) * 255).round().byte().numpy())
    draw = ImageDraw.Draw(picture)
    for column, label in enumerate(labels):
        draw.text((GAP + column * (width + GAP) + width / 2, header / 2), label, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.asarray(picture).copy()).float().div(255).unsqueeze(0)


def _fitting_font(labels: Sequence[str], width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font of at most a tenth of the width (and 12 to 48 pixels) in which every label fits its column."""
    size = min(max(12, width // 10), 48)
    while size > 8 and max(ImageFont.load_default(size).getlength(label) for label in labels) > width:
        size -= 1
    return ImageFont.load_default(size)
