"""Diversity and distance to the reference: known answers, symmetries, refusals."""

import pytest
import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards import card_of, load_reward
from deradiff.rewards.group_metrics import SIDE, GroupMetric, diversity, reference_distance
from deradiff.rewards.preprocess import downsample


def asked(metric: GroupMetric, pixels: Tensor, lams: list[float] | None = None) -> Tensor:
    """Values (P, S, L) of pixels (P, S, L, 3, H, W), pooled as a run's are, each among those of its group."""
    shape = pixels.shape[:3]
    lams = [0.0, *range(1, shape[2])] if lams is None else lams
    small = downsample(pixels.flatten(0, 2), SIDE).unflatten(0, shape)
    values = torch.empty(shape)
    for prompt in range(shape[0]):
        if metric.varies == "seed":
            for lam in range(shape[2]):
                values[prompt, :, lam] = metric.function(small[prompt, :, lam], range(shape[1]))
        else:
            for seed in range(shape[1]):
                values[prompt, seed] = metric.function(small[prompt, seed], lams)
    return values


def noise(*shape: int, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(*shape, 3, side, side, generator=torch.Generator().manual_seed(seed))


def greys(*levels: float, dim: int) -> Tensor:
    """Plain pictures along the seeds (1) or the lams (2), the only ones of their prompt."""
    shape = [1, 1, 1, 1, 1, 1]
    shape[dim] = len(levels)
    return torch.tensor(levels, dtype=torch.float32).view(shape).expand(*shape[:3], 3, 8, 8)


def test_diversity_of_known_pictures() -> None:
    assert asked(diversity, greys(0, 1, dim=1)).flatten().tolist() == pytest.approx([1, 1])
    assert asked(diversity, greys(0, 0.5, 1, dim=1)).flatten().tolist() == pytest.approx([0.75, 0.5, 0.75])
    half = torch.stack([torch.zeros(3, 4, 8), torch.ones(3, 4, 8)]).transpose(0, 1).reshape(1, 1, 1, 3, 8, 8)
    pair = torch.cat([half, torch.zeros_like(half)], dim=1)
    assert asked(diversity, pair).flatten().tolist() == pytest.approx([0.5**0.5] * 2)


def test_seeds_that_are_the_same_have_no_diversity() -> None:
    assert (asked(diversity, noise(2, 1, 3).expand(2, 40, 3, 3, 8, 8)) == 0).all()


def test_permuting_seeds_permutes_diversity() -> None:
    pixels, order = noise(2, 4, 3), [2, 0, 3, 1]
    torch.testing.assert_close(asked(diversity, pixels[:, order]), asked(diversity, pixels)[:, order])


def test_lams_of_a_group_are_reported_alone() -> None:
    """The distance of one picture doesn't depend on what else was sampled between it and the reference."""
    pixels = noise(2, 3, 4)
    values = asked(reference_distance, pixels)
    for lam in range(1, 4):
        torch.testing.assert_close(asked(reference_distance, pixels[:, :, [0, lam]])[:, :, 1], values[:, :, lam])


def test_distance_to_the_reference_of_known_pictures() -> None:
    assert asked(reference_distance, greys(0.25, 0.5, 1, dim=2)).flatten().tolist() == [0, 0.25, 0.75]
    elsewhere = asked(reference_distance, greys(0.25, 0.5, 1, dim=2), lams=[-1, 0, 1])
    assert elsewhere.flatten().tolist() == [0.25, 0, 0.5]
    assert (asked(reference_distance, noise(2, 3, 4))[:, :, 0] == 0).all()


def test_distance_to_the_reference_is_to_the_same_seed() -> None:
    pixels = noise(2, 3, 1).expand(2, 3, 2, 3, 8, 8)
    assert (asked(reference_distance, pixels) == 0).all()


@pytest.mark.parametrize("metric", [diversity, reference_distance])
@pytest.mark.parametrize("side", [SIDE // 2, SIDE])
def test_size_does_not_matter(metric: GroupMetric, side: int) -> None:
    pixels = noise(1, 2, 2, side=side)
    larger = pixels.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(asked(metric, larger), asked(metric, pixels))


@pytest.mark.parametrize("metric", [diversity, reference_distance])
def test_noise_of_single_pixels_counts_little_in_a_large_picture(metric: GroupMetric) -> None:
    small, large = (asked(metric, noise(1, 2, 2, side=side))[..., 1] for side in (SIDE, 8 * SIDE))
    assert (large < 0.2 * small).all()


def test_pooling_averages_and_keeps_the_shape() -> None:
    pixels = noise(2, side=2 * SIDE)[..., :SIDE]
    assert downsample(pixels, SIDE).shape == (2, 3, SIDE, SIDE // 2)
    torch.testing.assert_close(downsample(pixels, SIDE)[:, :, 3, 5], pixels[:, :, 6:8, 10:12].mean((2, 3)))
    torch.testing.assert_close(downsample(noise(1, side=9), SIDE), noise(1, side=9))


def test_what_cannot_be_compared_is_refused_and_says_why() -> None:
    assert diversity.unsupported_reason([0, 1]) is None
    assert reference_distance.unsupported_reason([0]) is None
    assert reference_distance.unsupported_reason([-1, 0.0, 2]) is None
    refused = [
        (diversity, [3], "diversity needs at least 2 seeds of each prompt, and the run has 1; sweep with more --seeds"),
        (reference_distance, [0.5, 1], "reference_distance needs lam = 0, and the run has 0.5, 1; add 0 to --lams"),
    ]
    for metric, values, told in refused:
        assert metric.unsupported_reason(values) is not None
        with pytest.raises(RewardError, match=f"^{told}$"):
            metric.check(values)
        metric.check([0, 1])
    for metric in (diversity, reference_distance):
        with pytest.raises(RewardError, match="compares an image with others of its run"):
            metric(noise(2), ["a", "b"])


def test_both_are_found_by_name_and_say_which_way_is_better() -> None:
    for name, direction in (("diversity", "higher"), ("reference_distance", "none")):
        found = load_reward(name)
        assert isinstance(found, GroupMetric)
        card = card_of(found)
        assert card is not None
        assert (card.name, card.direction) == (name, direction)
