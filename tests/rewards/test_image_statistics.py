"""Saturation, contrast and edges: known answers, any size, gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards import card_of, load_reward
from deradiff.rewards.image_statistics import EDGE_SIDE, contrast, edges, saturation

ALL = {"saturation": saturation, "contrast": contrast, "edges": edges}


def asked(reward: Any, *pixels: Tensor) -> list[float]:
    return reward(torch.stack(pixels), ["a prompt"] * len(pixels)).tolist()


def plain(red: float, green: float, blue: float, side: int = 8) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32)[:, None, None].expand(3, side, side)


def halves(side: int = 8, colour: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Black on the left, a colour on the right."""
    return plain(*colour, side=side) * (torch.arange(side) >= side // 2)


def noise(side: int, seed: int = 0) -> Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def larger(pixels: Tensor) -> Tensor:
    return pixels.repeat_interleave(2, 1).repeat_interleave(2, 2)


def test_a_plain_picture_has_its_colour_and_nothing_else() -> None:
    for colour, chroma in (((0.3, 0.3, 0.3), 0), ((1, 0, 0), 1), ((0.2, 0.9, 0.6), 0.7), ((0, 0, 0), 0)):
        assert asked(saturation, plain(*colour)) == pytest.approx([chroma])
        for none in (contrast, edges):
            assert asked(none, plain(*colour)) == pytest.approx([0], abs=1e-6)


def test_black_and_white_halves() -> None:
    assert asked(saturation, halves()) == [0]
    assert asked(contrast, halves()) == pytest.approx([0.5])
    assert asked(edges, halves(), halves().transpose(1, 2)) == pytest.approx([1, 1])
    two_edges = torch.cat([halves(), halves().flip(2)], dim=2)
    assert asked(edges, two_edges, two_edges.transpose(1, 2).flip(1)[:, :8].repeat(1, 1, 2)) == pytest.approx([2, 1])


@pytest.mark.parametrize(("channel", "weight"), [(0, 0.2126), (1, 0.7152), (2, 0.0722)])
def test_channels_count_by_their_luma(channel: int, weight: float) -> None:
    colour = (float(channel == 0), float(channel == 1), float(channel == 2))
    assert asked(contrast, halves(colour=colour)) == pytest.approx([weight / 2])
    assert asked(edges, halves(colour=colour)) == pytest.approx([weight])


@pytest.mark.parametrize("name", ALL)
def test_twice_as_far_from_grey_is_twice_as_much(name: str) -> None:
    faint = 0.25 + noise(16) / 2
    once, twice = asked(ALL[name], faint, 0.5 + 2 * (faint - 0.5))
    assert once > 0.01
    assert twice == pytest.approx(2 * once, rel=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", [20, EDGE_SIDE])
def test_size_does_not_matter(name: str, side: int) -> None:
    assert asked(ALL[name], larger(noise(side))) == pytest.approx(asked(ALL[name], noise(side)), rel=1e-4)


def test_noise_of_single_pixels_makes_no_more_edges_in_a_larger_picture() -> None:
    assert asked(edges, noise(4 * EDGE_SIDE))[0] < 0.7 * asked(edges, noise(2 * EDGE_SIDE))[0]


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_right_and_finite_where_a_picture_is_flat(name: str) -> None:
    def own(pixels: Tensor) -> Tensor:
        return ALL[name](pixels, ["a", "b"])

    pixels = torch.stack([noise(5), noise(5, seed=1)]).double().requires_grad_()
    assert torch.autograd.gradcheck(own, pixels)
    flat = torch.full((2, 3, 5, 5), 0.5, requires_grad=True)
    own(flat).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_judged_by_itself(name: str) -> None:
    alone = asked(ALL[name], noise(8)) + asked(ALL[name], noise(8, seed=1))
    assert asked(ALL[name], noise(8), noise(8, seed=1)) == pytest.approx(alone)


@pytest.mark.parametrize("name", ALL)
def test_each_is_found_by_name_and_should_stay_as_it_is(name: str) -> None:
    card = card_of(load_reward(name))
    assert card is not None
    assert (card.name, card.direction, card.model) == (name, "steady", "none")
    assert (card.margin, card.relative) == (0.25, True)
    assert card.margin_source
    with pytest.raises(RewardError, match=r"\(2, 1, 4, 4\); expected \[batch, 3"):
        ALL[name](torch.zeros(2, 1, 4, 4), ["a", "b"])
