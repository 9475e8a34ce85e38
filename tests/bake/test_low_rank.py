"""Sums and truncations of low-rank updates against dense linear algebra."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deradiff.bake.low_rank import LowRank, factorize, truncate, weighted_sum
from deradiff.errors import BakeError


def random_update(seed: int, rank: int, *, conv: bool) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    shape, ones = ((5, 3, 3), (1, 1)) if conv else ((7,), ())
    down = torch.randn(rank, *shape, generator=generator)
    return LowRank(down, torch.randn(6, rank, *ones, generator=generator))


def dense_by_convolution(update: LowRank) -> Tensor:
    """dW from what the two layers do to unit inputs, as diffusers and PEFT run them."""
    if update.down.ndim == 2:
        return torch.stack([update.up @ (update.down @ unit) for unit in torch.eye(update.down.shape[1])], dim=1)
    return torch.nn.functional.conv2d(update.down.permute(1, 0, 2, 3), update.up).permute(1, 0, 2, 3)


@pytest.mark.parametrize("conv", [False, True])
def test_dense_and_norm_are_what_the_two_layers_do(conv: bool) -> None:
    update = random_update(0, 3, conv=conv)
    torch.testing.assert_close(update.dense(), dense_by_convolution(update))
    assert update.norm() == pytest.approx(float(update.dense().norm()), rel=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.booleans(), st.lists(st.floats(-4, 4), min_size=1, max_size=3), st.integers(1, 4))
def test_a_weighted_sum_is_exact(conv: bool, weights: list[float], rank: int) -> None:
    updates = [random_update(seed, rank, conv=conv) for seed in range(len(weights))]
    total = sum(
        (weight * update.dense() for weight, update in zip(weights, updates, strict=True)), start=torch.tensor(0.0)
    )
    torch.testing.assert_close(weighted_sum(updates, weights).dense(), total, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.booleans(), st.integers(1, 6), st.floats(0.3, 1.0))
def test_truncations_are_the_best_and_tell_their_error(conv: bool, rank: int, energy: float) -> None:
    update = random_update(1, 6, conv=conv)
    dense = update.dense()
    values = torch.linalg.svdvals(dense.flatten(1).double())
    for kept, error in (factorize(dense, rank=rank, energy=energy), truncate(update, rank=rank, energy=energy)):
        rest = float((kept.dense() - dense).norm() / dense.norm())
        assert error == pytest.approx(rest, abs=1e-4)
        best = float((values[kept.rank :].square().sum() / values.square().sum()).sqrt())
        assert rest == pytest.approx(best, abs=1e-4)  # Eckart and Young: no update of this rank is nearer
        assert kept.rank <= rank
        if kept.rank < rank:  # the energy stopped it: kept, and not with one rank less
            assert 1 - error**2 >= energy - 1e-4
            assert float(values[: kept.rank - 1].square().sum() / values.square().sum()) < energy + 1e-4


def test_an_update_of_zeros_stays_one() -> None:
    update, error = factorize(torch.zeros(4, 3), rank=None, energy=0.9)
    assert error == 0
    assert not update.dense().any()


def test_an_update_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(BakeError, match="NaN or infinite"):
        factorize(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), rank=None, energy=0.99)
