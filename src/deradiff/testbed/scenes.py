"""The scenes the testbed draws: one or two coloured shapes on a plain background, 64 x 64 pixels.

A scene is a background colour and one or two *sprites*: a shape of some size in some place, with a soft-edged mask m.
Sprites of one scene never overlap, so an image is ``b + sum_k m_k (c_k - b)``, with b and c_k colours of the palette.
Places lie on a grid of 4 pixels, hence every image that can be drawn is known and `judge` can match it exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

SIDE = 64
PALETTE = {
    "red": (222, 58, 60),
    "orange": (246, 146, 38),
    "yellow": (250, 219, 88),
    "green": (62, 168, 98),
    "blue": (50, 104, 214),
    "purple": (148, 82, 192),
    "white": (249, 248, 244),
    "black": (34, 35, 46),
}
COLOURS = tuple(PALETTE)
RGB = torch.tensor(list(PALETTE.values()), dtype=torch.float32) / 255
SHAPES = ("circle", "square", "triangle")
RADII = {"small": 10, "medium": 12, "large": 21}
PAIRS = {"left of": ("left", "right"), "above": ("top", "bottom")}
_NEAR, _FAR, _MIDDLE = (14, 18), (46, 50), (28, 32, 36)
_PLACES = {
    "left": tuple(product(_NEAR, _MIDDLE)),
    "right": tuple(product(_FAR, _MIDDLE)),
    "top": tuple(product(_MIDDLE, _NEAR)),
    "bottom": tuple(product(_MIDDLE, _FAR)),
}
_OVERSAMPLING = 8


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """A shape of one size, centred at ``(x, y)`` pixels, in a slot: ``"centre"`` alone, else one side of a pair."""

    shape: str
    size: str
    slot: str
    x: int
    y: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background colour and one sprite, or two in opposite slots, each given by its index in `SPRITES`."""

    background: str
    sprites: tuple[int, ...]
    colours: tuple[str, ...]


def _all_sprites() -> tuple[Sprite, ...]:
    middle = tuple(product((24, 28, 32, 36, 40), repeat=2))
    alone = [
        Sprite(shape=shape, size=size, slot="centre", x=x, y=y)
        for shape, size, (x, y) in product(SHAPES, ("small", "large"), middle)
    ]
    paired = [
        Sprite(shape=shape, size="medium", slot=slot, x=x, y=y)
        for shape in SHAPES
        for slot, places in _PLACES.items()
        for x, y in places
    ]
    return (*alone, *paired)


SPRITES = _all_sprites()


def _mask(sprite: Sprite) -> Image.Image:
    """The sprite's coverage of every pixel, anti-aliased by drawing it larger and averaging."""
    side, radius = SIDE * _OVERSAMPLING, RADII[sprite.size] * _OVERSAMPLING
    x, y = sprite.x * _OVERSAMPLING, sprite.y * _OVERSAMPLING
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    if sprite.shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    elif sprite.shape == "square":
        half = 0.88 * radius
        pen.rectangle((x - half, y - half, x + half, y + half), fill=255)
    else:
        base, foot = 1.1 * radius, y + 0.85 * radius
        pen.polygon([(x, y - base), (x - base, foot), (x + base, foot)], fill=255)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


@cache
def masks() -> Tensor:
    """The mask of every sprite, ``[len(SPRITES), 64, 64]`` in [0, 1]."""
    return torch.stack([torch.from_numpy(np.array(_mask(sprite), dtype=np.float32)) for sprite in SPRITES]) / 255


@cache
def in_slot(slot: str) -> tuple[int, ...]:
    """Indices of the sprites of one slot."""
    return tuple(index for index, sprite in enumerate(SPRITES) if sprite.slot == slot)


def random_scene(rng: np.random.Generator, *, pair_share: float = 0.6) -> Scene:
    """A scene drawn uniformly from those of one object or, with probability ``pair_share``, of two."""
    slots = list(PAIRS.values())[rng.integers(len(PAIRS))] if rng.random() < pair_share else ("centre",)
    background, *others = rng.permutation(len(COLOURS))
    return Scene(
        background=COLOURS[background],
        sprites=tuple(int(rng.choice(in_slot(slot))) for slot in slots),
        colours=tuple(COLOURS[colour] for colour in others[: len(slots)]),
    )


def draw(scenes: Sequence[Scene]) -> Tensor:
    """Images of scenes, ``[N, 3, 64, 64]`` in [0, 1]."""
    images = torch.stack([RGB[COLOURS.index(scene.background)] for scene in scenes])[:, :, None, None]
    images = images.repeat(1, 1, SIDE, SIDE)
    for image, scene in zip(images, scenes, strict=True):
        for sprite, colour in zip(scene.sprites, scene.colours, strict=True):
            image.lerp_(RGB[COLOURS.index(colour)][:, None, None], masks()[sprite])
    return images
