"""Image statistics that over-optimisation changes: saturation, contrast and edges, which should stay steady.

Each takes pixels ``[batch, 3, height, width]`` in [0, 1], returns ``[batch]``, is differentiable in the pixels and
ignores prompts. Luma is computed from gamma-encoded red, green and blue.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.card import Card, with_card
from deradiff.rewards.preprocess import downsample

LUMA = (0.2126, 0.7152, 0.0722)  # of red, green and blue in sRGB's primaries (ITU-R BT.709)
EDGE_SIDE = 256  # px, the longer side at which edges are measured


@with_card(
    Card(
        name="saturation",
        measures="how colourful the picture is: the mean of its pixels' largest channel less the smallest",
        range="0 (grey) to 1",
        model="none",
        licence="none",
        citation="Smith 1978, Color gamut transform pairs (chroma of the hexcone)",
        direction="steady",
        margin=0.25,
        relative=True,
        margin_source="this project's choice: a quarter of the reference",
    )
)
def saturation(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean over pixels of max - min over channels, ``[batch]``, in [0, 1].

    This is HSV's chroma. HSV's saturation is undefined at black.

    Raises:
        RewardError: pixels of another shape.
    """
    _check(pixels)
    return (pixels.amax(1) - pixels.amin(1)).mean((1, 2))


@with_card(
    Card(
        name="contrast",
        measures="how far light and dark lie apart: the standard deviation of luma over the picture",
        range="0 (one luma everywhere) to 0.5 (half black, half white)",
        model="none",
        licence="none",
        citation="Peli 1990, Contrast in complex images, J. Opt. Soc. Am. A 7(10)",
        direction="steady",
        margin=0.25,
        relative=True,
        margin_source="this project's choice: a quarter of the reference",
    )
)
def contrast(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    """Root mean square contrast, ``[batch]``, in [0, 0.5]: the standard deviation of luma over the image.

    Raises:
        RewardError: pixels of another shape.
    """
    return _luma(pixels).flatten(1).std(1, correction=0)


@with_card(
    Card(
        name="edges",
        measures="how much outline and texture there is: the mean gradient of luma, per side of the picture",
        range="0 upwards; one black-white edge across the whole picture counts 1",
        model="none",
        licence="none",
        citation="Rudin, Osher & Fatemi 1992, Physica D 60 (total variation)",
        direction="steady",
        margin=0.25,
        relative=True,
        margin_source="this project's choice: a quarter of the reference",
    )
)
def edges(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean of |d luma / dx| + |d luma / dy|, ``[batch]``, >= 0, with x and y in widths and heights of the image.

    Gradients per pixel would shrink as an image is enlarged, and single-pixel noise would count more. Therefore
    gradients are per side, and larger images are first downsampled to `EDGE_SIDE`.

    Raises:
        RewardError: pixels of another shape.
    """
    luma = downsample(_luma(pixels)[:, None], EDGE_SIDE)[:, 0]
    across, down = luma.diff(dim=2).abs(), luma.diff(dim=1).abs()
    return across.sum(2).mean(1) + down.sum(1).mean(1)


def _luma(pixels: Tensor) -> Tensor:
    _check(pixels)
    return torch.einsum("nchw,c->nhw", pixels, torch.tensor(LUMA).to(pixels))


def _check(pixels: Tensor) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise RewardError(f"got pixels of shape {tuple(pixels.shape)}; expected [batch, 3, height, width] in [0, 1]")
