"""The preference losses against values worked by hand, and the direction of their gradients."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deradiff.align import dpo_loss, ipo_loss
from deradiff.align.loss import implicit_margin


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_drift_by_hand() -> None:
    policy = torch.tensor([[2.5, 3.0], [5.5, 5.0]])
    reference = torch.tensor([[3.0, 3.0], [5.0, 5.0]])
    assert implicit_margin(policy, reference).tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_policy_equal_to_reference_loses_log_two(probability: float) -> None:
    assert dpo_loss(one(0.0), beta=3.0, probability=probability).item() == pytest.approx(math.log(2))


def test_dpo_by_hand() -> None:
    # beta r = 0.5 * 2 = 1
    expected = 0.8 * math.log(1 + math.exp(-1)) + 0.2 * math.log(1 + math.exp(1))
    assert dpo_loss(one(2.0), beta=0.5, probability=0.8).item() == pytest.approx(expected)


def test_ipo_by_hand() -> None:
    # 1 / (2 beta) = 1: a hard label's (2 - 1)², and 0.8 (2 - 1)² + 0.2 (2 + 1)²
    assert ipo_loss(one(2.0), beta=0.5).item() == pytest.approx(1.0)
    assert ipo_loss(one(2.0), beta=0.5, probability=0.8).item() == pytest.approx(2.6)
    assert ipo_loss(one(1.0), beta=0.5).item() == 0


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_label_smoothing_is_a_label_less_certain(loss: Callable[..., Tensor]) -> None:
    smooth = loss(one(2.0), beta=0.5, probability=0.9, label_smoothing=0.1)
    assert smooth.item() == pytest.approx(loss(one(2.0), beta=0.5, probability=0.9 * 0.9 + 0.1 * 0.1).item())


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_mean_over_pairs_with_a_label_each(loss: Callable[..., Tensor]) -> None:
    both = loss(torch.tensor([2.0, -1.0]), beta=0.5, probability=torch.tensor([1.0, 0.4]))
    own = loss(one(2.0), beta=0.5), loss(one(-1.0), beta=0.5, probability=0.4)
    assert both.item() == pytest.approx((own[0] + own[1]).item() / 2)


@pytest.mark.parametrize(("probability", "sign"), [(1.0, 1.0), (0.0, -1.0)])
def test_gradient_lowers_the_error_of_the_better_image(probability: float, sign: float) -> None:
    policy = torch.tensor([[3.0], [5.0]], requires_grad=True)
    log_ratio = -2.0 * implicit_margin(policy, torch.tensor([[3.0], [5.0]]))
    dpo_loss(log_ratio, beta=0.5, probability=probability).backward()
    # d/dh of -log sigmoid(h) at 0 is -1/2, and dh / d chosen = -beta * multiplier = -1
    assert policy.grad is not None
    assert policy.grad.flatten().tolist() == pytest.approx([sign * 0.5, -sign * 0.5])


def test_even_odds_are_best_met_by_standing_still() -> None:
    for loss in (dpo_loss, ipo_loss):
        assert loss(one(0.0), beta=0.5, probability=0.5) < loss(one(0.1), beta=0.5, probability=0.5)


def test_dpo_is_lowest_where_beta_times_the_log_ratio_is_the_logit_of_the_label() -> None:
    r = one(0.0).requires_grad_()
    (slope,) = torch.autograd.grad(dpo_loss(r + math.log(4) / 0.3, beta=0.3, probability=0.8), r)
    assert slope.item() == pytest.approx(0, abs=1e-12)
