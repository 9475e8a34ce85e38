"""The Diffusion-DPO loss against values worked by hand, and the direction of its gradient."""

import math

import pytest
import torch
from torch import Tensor

from deradiff.align import dpo_loss


def _loss(
    *, chosen: float, rejected: float, probability: float = 1.0, beta: float = 0.5, timestep_weight: float = 2.0
) -> Tensor:
    one = torch.ones(1, dtype=torch.float64)
    return dpo_loss(
        policy_chosen=chosen * one,
        policy_rejected=rejected * one,
        reference_chosen=3.0 * one,
        reference_rejected=5.0 * one,
        probability=probability,
        beta=beta,
        timestep_weight=timestep_weight,
    )


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_policy_equal_to_reference_loses_log_two(probability: float) -> None:
    assert _loss(chosen=3.0, rejected=5.0, probability=probability).item() == pytest.approx(math.log(2))


def test_hand_worked_value() -> None:
    # drift = (2.5 - 3) - (5.5 - 5) = -1, h = -0.5 * 2 * -1 = 1
    expected = -0.8 * math.log(1 / (1 + math.exp(-1))) - 0.2 * math.log(1 / (1 + math.exp(1)))
    assert _loss(chosen=2.5, rejected=5.5, probability=0.8).item() == pytest.approx(expected)


def test_mean_over_pairs_and_a_weight_for_each_timestep() -> None:
    chosen, rejected = torch.tensor([2.5, 3.0]), torch.tensor([5.5, 5.0])
    loss = dpo_loss(
        policy_chosen=chosen,
        policy_rejected=rejected,
        reference_chosen=torch.full((2,), 3.0),
        reference_rejected=torch.full((2,), 5.0),
        probability=torch.tensor([1.0, 0.4]),
        beta=0.5,
        timestep_weight=torch.tensor([4.0, 100.0]),
    )
    assert loss.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)


@pytest.mark.parametrize(("probability", "sign"), [(1.0, 1.0), (0.0, -1.0)])
def test_gradient_lowers_the_error_of_the_better_image(probability: float, sign: float) -> None:
    chosen, rejected = torch.tensor([3.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    dpo_loss(
        policy_chosen=chosen,
        policy_rejected=rejected,
        reference_chosen=torch.tensor([3.0]),
        reference_rejected=torch.tensor([5.0]),
        probability=probability,
        beta=0.5,
        timestep_weight=2.0,
    ).backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    # d/dh of -log sigmoid(h) at 0 is -1/2, and dh/d chosen = -beta * weight = -1
    assert chosen.grad.item() == pytest.approx(sign * 0.5)
    assert rejected.grad.item() == pytest.approx(-sign * 0.5)


def test_even_odds_are_best_met_by_standing_still() -> None:
    assert _loss(chosen=3.0, rejected=5.0, probability=0.5) < _loss(chosen=2.9, rejected=5.0, probability=0.5)
