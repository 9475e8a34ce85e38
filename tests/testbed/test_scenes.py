"""Scenes and captions: pictures are what they are said to be, and captions read back."""

import numpy as np
import pytest
import torch

from deradiff.errors import DeradiffError
from deradiff.testbed.captions import caption, claim_of, parse, random_caption
from deradiff.testbed.scenes import COLOURS, PAIRS, RGB, SPRITES, Scene, draw, in_slot, masks, random_scene


def test_sprites_of_opposite_slots_never_overlap_and_stay_inside() -> None:
    for first, second in PAIRS.values():
        covered = [masks()[list(in_slot(slot))].amax(0) for slot in (first, second)]
        assert torch.count_nonzero(covered[0] * covered[1]) == 0
    border = torch.cat([masks()[:, 0], masks()[:, -1], masks()[:, :, 0], masks()[:, :, -1]], dim=1)
    assert border.max() < 1  # no sprite is cut flat by the frame


def test_a_drawn_scene_has_its_colours_where_they_belong() -> None:
    left = next(index for index in in_slot("left") if SPRITES[index].shape == "circle")
    right = next(index for index in in_slot("right") if SPRITES[index].shape == "square")
    image = draw([Scene(background="white", sprites=(left, right), colours=("red", "blue"))])[0]
    for sprite, colour in ((SPRITES[left], "red"), (SPRITES[right], "blue")):
        assert torch.allclose(image[:, sprite.y, sprite.x], RGB[COLOURS.index(colour)])
    assert torch.allclose(image[:, 0, 0], RGB[COLOURS.index("white")])


def test_random_scenes_use_every_sprite_slot_and_different_colours() -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(300)]
    assert {SPRITES[index].slot for scene in scenes for index in scene.sprites} == {
        "centre",
        "left",
        "right",
        "top",
        "bottom",
    }
    assert all(len({scene.background, *scene.colours}) == 1 + len(scene.colours) for scene in scenes)


def test_captions_read_back() -> None:
    rng = np.random.default_rng(1)
    for scene in (random_scene(rng) for _ in range(300)):
        claim = claim_of(scene)
        assert parse(caption(claim)) == claim
        if claim.pair:
            assert parse(caption(claim, reverse=True)) == claim
        partial = parse(random_caption(scene, rng))
        assert partial.size in (None, claim.size)
        assert partial.background in (None, claim.background)
        assert (partial.shapes, partial.colours, partial.pair) == (claim.shapes, claim.colours, claim.pair)


def test_below_and_right_of_name_the_same_scene_in_reverse() -> None:
    assert parse("a red circle below an orange square") == parse("an orange square above a red circle")
    assert parse("a red circle right of a blue square") == parse("a blue square left of a red circle")


@pytest.mark.parametrize(
    "text", ["", "a cat", "a small red circle above a blue square", "a red circle on a pink background"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DeradiffError, match="not a caption of the testbed"):
        parse(text)
