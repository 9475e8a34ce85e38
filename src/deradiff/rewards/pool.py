"""Pictures made small by averaging, so that their size and the noise of single pixels don't matter."""

from torch import Tensor
from torch.nn.functional import interpolate


def pooled(pixels: Tensor, side: int) -> Tensor:
    """Means over areas, (N, C, h, w), of pixels (N, C, H, W): the longer side is at most ``side``; less is kept."""
    scale = side / max(pixels.shape[-2:])
    if scale >= 1:
        return pixels
    high, wide = (max(1, round(length * scale)) for length in pixels.shape[-2:])
    return interpolate(pixels, (high, wide), mode="area")
