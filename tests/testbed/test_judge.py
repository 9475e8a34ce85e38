"""The judge is right on every kind of drawn scene, and wrong scenes, blanks and blurs don't pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from deradiff.errors import DeradiffError
from deradiff.testbed.captions import caption, claim_of, random_caption
from deradiff.testbed.judge import faithfulness, scene_distance, warmth
from deradiff.testbed.scenes import COLOURS, RGB, SHAPES, SPRITES, Scene, draw, in_slot, random_scene

FULL = "a small red circle on a white background"


def _scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


def _picture(index: int, colour: str = "red", background: str = "white") -> Tensor:
    return draw([Scene(background=background, sprites=(index,), colours=(colour,))])


def test_every_sprite_is_recognised_as_what_it_is() -> None:
    scenes = [Scene(background="white", sprites=(index,), colours=("red",)) for index in in_slot("centre")]
    captions = [caption(claim_of(scene)) for scene in scenes]
    assert faithfulness(draw(scenes), captions).all()
    assert scene_distance(draw(scenes), captions).min() > -1e-3


def test_random_scenes_are_faithful_to_their_captions_even_under_noise() -> None:
    scenes, rng = _scenes(200), np.random.default_rng(1)
    captions, images = [random_caption(scene, rng) for scene in scenes], draw(scenes)
    assert faithfulness(images, captions).all()
    noisy = images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert faithfulness(noisy, captions).all()
    assert torch.allclose(scene_distance(noisy, captions), torch.tensor(-0.05), atol=2e-3)


def test_any_one_wrong_attribute_is_caught() -> None:
    for scene in _scenes(60, seed=2):
        claim, image = claim_of(scene), draw([scene])
        other = next(colour for colour in COLOURS if colour not in (*scene.colours, scene.background))
        wrong = [replace(claim, background=other), replace(claim, colours=(other, *claim.colours[1:]))]
        shape = SHAPES[SHAPES.index(claim.shapes[-1]) - 1]
        wrong.append(replace(claim, shapes=(*claim.shapes[:-1], shape)))
        if claim.pair:
            wrong.append(replace(claim, pair="above" if claim.pair == "left of" else "left of"))
            wrong.append(replace(claim, colours=claim.colours[::-1]))
        else:
            wrong.append(replace(claim, size="small" if claim.size == "large" else "large"))
        captions = [caption(claim) for claim in wrong]
        images = image.expand(len(captions), -1, -1, -1)
        assert not faithfulness(images, captions).any(), (scene, captions)
        assert scene_distance(images, captions).max() < -0.01


def test_a_blank_picture_and_a_blurred_one_show_nothing() -> None:
    blank = RGB[COLOURS.index("white")][None, :, None, None].expand(1, 3, 64, 64)
    assert not faithfulness(blank, [FULL]).any()
    index = next(
        index for index in in_slot("centre") if SPRITES[index].size == "small" and SPRITES[index].shape == "circle"
    )
    assert faithfulness(_picture(index), [FULL]).all()
    assert not faithfulness(0.6 * _picture(index), [FULL]).any()


def test_a_missing_second_object_is_caught() -> None:
    scene = next(scene for scene in _scenes(20) if len(scene.sprites) == 2)
    lonely = Scene(background=scene.background, sprites=scene.sprites[:1], colours=scene.colours[:1])
    assert not faithfulness(draw([lonely]), [caption(claim_of(scene))]).any()


def test_warmth_is_raised_by_red_and_differentiable() -> None:
    images = draw(_scenes(4)).requires_grad_()
    warmth(images, [""] * 4).sum().backward()
    assert images.grad is not None
    assert (images.grad[:, 0] > 0).all()
    assert (images.grad[:, 2] < 0).all()
    red, blue = (_picture(0, background=colour, colour="black") for colour in ("red", "blue"))
    assert warmth(red, [""]) > 0.5 > -0.5 > warmth(blue, [""])


def test_pictures_of_the_wrong_shape_or_count_are_refused() -> None:
    with pytest.raises(DeradiffError, match="expected"):
        faithfulness(torch.zeros(1, 3, 32, 32), [FULL])
    with pytest.raises(DeradiffError, match="expected"):
        warmth(torch.zeros(2, 3, 64, 64), [FULL])
