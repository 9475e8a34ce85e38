"""Preprocessing against its specification, pixel for pixel, on sizes that divide badly."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from deradiff.rewards.preprocess import (
    floor_half,
    normalize_pixels,
    preprocess_by_config,
    resize_and_crop,
    resize_and_pad,
    round_half,
    to_pil,
    to_tensor,
)

SIZES = [(28, 28), (9, 13), (37, 52), (53, 30), (7, 91), (224, 225), (1, 40), (300, 29)]


def picture(high: int, wide: int) -> Image.Image:
    levels = np.random.default_rng(high * wide).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("size", SIZES)
def test_as_transformers_does_it(size: tuple[int, int]) -> None:
    own = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    expected = own([picture(*size)], return_tensors="pt")["pixel_values"]
    config = {"size": 28, "crop_size": 28, "resample": 3, "image_mean": own.image_mean, "image_std": own.image_std}
    torch.testing.assert_close(preprocess_by_config([picture(*size)], config), expected, rtol=0, atol=1e-5)


def test_the_filter_and_a_smaller_crop_are_the_config_s() -> None:
    own = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 25, "width": 25}, resample=2)
    expected = own([picture(41, 67)], return_tensors="pt")["pixel_values"]
    config = {"size": {"shortest_edge": 32}, "crop_size": {"height": 25, "width": 25}, "resample": 2}
    told = preprocess_by_config([picture(41, 67)], config | {"image_mean": own.image_mean, "image_std": own.image_std})
    torch.testing.assert_close(told, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_torchvision_s_centre(size: tuple[int, int]) -> None:
    """Resize(28) takes int(28 long / short); CenterCrop starts at int(round(margin / 2.0))."""
    high, wide = size
    short, long = min(size), max(size)
    longer = int(28 * long / short)
    tall, broad = (longer, 28) if high > wide else (28, longer)
    top, left = round((tall - 28) / 2.0), round((broad - 28) / 2.0)
    expected = np.asarray(picture(*size).resize((broad, tall), Image.Resampling.BICUBIC))[
        top : top + 28, left : left + 28
    ]
    assert np.array_equal(np.asarray(resize_and_crop(picture(*size), 28, round_half)), expected)


def test_where_the_two_centres_differ() -> None:
    assert [floor_half(margin) for margin in range(5)] == [0, 0, 1, 1, 2]
    assert [round_half(margin) for margin in range(5)] == [0, 0, 1, 2, 2]


def bicubic(pixels: Tensor, size: int) -> Tensor:
    """One axis (the last) resized by the antialiased cubic of a = -0.5, written out."""
    before = pixels.shape[-1]
    scale = before / size
    reach = max(scale, 1.0)
    weights = torch.zeros(size, before, dtype=torch.float64)
    for new in range(size):
        away = ((torch.arange(before) + 0.5 - (new + 0.5) * scale) / reach).abs().double()
        near = 1.5 * away**3 - 2.5 * away**2 + 1
        far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
        row = torch.where(away <= 1, near, torch.where(away < 2, far, 0.0))
        weights[new] = row / row.sum()
    return pixels.double() @ weights.T


@pytest.mark.parametrize("size", SIZES)
def test_hpsv2_s_padding(size: tuple[int, int]) -> None:
    high, wide = (max(1, round(side * 28 / max(size))) for side in size)
    small = bicubic(bicubic(to_tensor(picture(*size)), wide).transpose(1, 2), high).transpose(1, 2)
    expected = torch.zeros(3, 28, 28)
    top, left = (28 - high) // 2, (28 - wide) // 2
    expected[:, top : top + high, left : left + wide] = small
    torch.testing.assert_close(resize_and_pad(picture(*size), 28), expected, rtol=0, atol=1e-5)


def test_a_picture_of_the_size_is_padded_and_otherwise_kept() -> None:
    told = resize_and_pad(picture(28, 20), 28)
    assert torch.equal(told[:, :, 4:24], to_tensor(picture(28, 20)))
    assert told[:, :, :4].abs().max() == told[:, :, 24:].abs().max() == 0


def test_pixels_are_rounded_to_eight_bits() -> None:
    pixels = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.3]).expand(1, 3, 2, 6)
    assert np.asarray(to_pil(pixels)[0])[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
    levels = torch.randint(256, (2, 3, 5, 4)) / 255
    assert torch.equal(torch.stack([to_tensor(one) for one in to_pil(levels)]), levels)


def test_normalised() -> None:
    told = normalize_pixels(torch.ones(1, 3, 1, 1), (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    assert told.flatten().tolist() == [1, 3, 0.5]
