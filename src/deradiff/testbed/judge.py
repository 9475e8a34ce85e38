"""Rewards on images ``[N, 3, 64, 64]`` in [0, 1] and their captions, each a tensor ``[N]``, higher is better.

*Proxy*: `warmth`, differentiable and blind to the caption, hence easy to over-optimise. *Gold*: `faithfulness` and
`scene_distance`, exact matching against every scene that can be drawn. For an image X and a scene of background b and
sprites of masks m_k and colours c_k, which do not overlap,

    |X - b - sum_k m_k (c_k - b)|^2 = |X - b|^2 + sum_k [ |m_k|^2 |c_k - b|^2 - 2 (c_k - b) . sum m_k (X - b) ]

so each slot is minimised by itself, over a few hundred sprites and colours, and no list of scenes is ever made.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from deradiff.errors import DeradiffError
from deradiff.rewards.card import Card, checks_prompts, with_card
from deradiff.testbed.captions import Claim, parse
from deradiff.testbed.scenes import COLOURS, PAIRS, RGB, SIDE, SPRITES, in_slot, masks

WARMTH_SCALE = 2.5
TOLERANCE = 0.12
"""Root mean square error above which an image shows no scene."""
_TIE = 1e-7
_LAYOUTS = (("centre",), *PAIRS.values())


def warmth(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """2.5 times the mean of red minus blue: in [-2.5, 2.5], 2.0 for an all-orange image; differentiable."""
    _check(images, prompts)
    return WARMTH_SCALE * (images[:, 0] - images[:, 2]).mean((1, 2))


@checks_prompts(parse)
@with_card(
    Card(
        name="faithfulness",
        measures="whether the image shows a scene that the caption describes, by exact matching",
        range="0 or 1",
        model="none",
        licence="none",
        citation="none",
        margin=0.05,
        margin_source="this project's choice: one image in twenty",
        floor=0.0,
    )
)
def faithfulness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """1.0 where the nearest scene is one the prompt describes and within `TOLERANCE`, else 0.0.

    Raises:
        DeradiffError: a prompt isn't a caption of the testbed, or the counts or shapes don't fit.
    """
    claimed, nearest = _errors(images, prompts)
    return ((claimed <= nearest + _TIE) & (claimed.sqrt() <= TOLERANCE)).float()


@checks_prompts(parse)
def scene_distance(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Minus the root mean square error to the nearest scene that the prompt describes, ``[batch]``, in [-1, 0].

    Raises:
        DeradiffError: as `faithfulness`.
    """
    return -_errors(images, prompts)[0].sqrt()


@torch.no_grad()
def _errors(images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean square error to the nearest scene of the prompt, and to the nearest of all scenes, blank ones included."""
    _check(images, prompts)
    claims = [parse(prompt) for prompt in prompts]
    ground, change = _squared_errors(images.double())
    total = {layout: _best(ground, change, layout, Claim(shapes=(), colours=())) for layout in _LAYOUTS}
    nearest = torch.stack(list(total.values())).amin(0)
    claimed = torch.stack(
        [
            _best(ground[row, None], change[row, None], PAIRS[claim.pair] if claim.pair else ("centre",), claim)[0]
            for row, claim in enumerate(claims)
        ]
    )
    error = (torch.stack([claimed, nearest]) / (3 * SIDE * SIDE)).clamp(min=0).to(images.dtype)
    return error[0], error[1]


def _squared_errors(images: Tensor) -> tuple[Tensor, Tensor]:
    """|X - b|^2, ``[N, backgrounds]``, and what a sprite changes it by, ``[N, backgrounds, sprites, colours]``."""
    pixels, mask, rgb = images.flatten(2), masks().flatten(1).to(images), RGB.to(images)
    ground = pixels.square().sum((1, 2))[:, None] - 2 * pixels.sum(2) @ rgb.T + SIDE * SIDE * rgb.square().sum(1)
    offset = rgb[None] - rgb[:, None]  # [backgrounds, colours, 3]: c - b
    covered = torch.einsum("ncp,sp->nsc", pixels, mask)[:, None] - mask.sum(1)[:, None] * rgb[:, None]  # m . (X - b)
    change = mask.square().sum(1)[:, None] * offset.square().sum(2)[:, None] - 2 * torch.einsum(
        "nbsc,bkc->nbsk", covered, offset
    )
    return ground, change


def _best(ground: Tensor, change: Tensor, layout: tuple[str, ...], claim: Claim) -> Tensor:
    """The least squared error over the scenes of one layout that a claim allows; an empty claim allows blank ones."""
    error = ground
    for position, slot in enumerate(layout):
        part = change[:, :, list(in_slot(slot))]
        if claim.shapes:
            wanted = [
                SPRITES[index].shape == claim.shapes[position] and claim.size in (None, SPRITES[index].size)
                for index in in_slot(slot)
            ]
            part = part[:, :, torch.tensor(wanted)][..., [COLOURS.index(claim.colours[position])]]
        error = error + part.amin((2, 3))
    if claim.background is not None:
        return error[:, COLOURS.index(claim.background)]
    return error[:, [colour not in claim.colours for colour in COLOURS]].amin(1)


def _check(images: Tensor, prompts: Sequence[str]) -> None:
    if images.ndim != 4 or images.shape[1:] != (3, SIDE, SIDE) or len(images) != len(prompts):
        raise DeradiffError(
            f"got images of shape {tuple(images.shape)} and {len(prompts)} prompts; expected [N, 3, {SIDE}, {SIDE}] "
            "in [0, 1] with one caption each: decode with output_type='pt'."
        )
