import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deradiff.errors import LamError
from deradiff.mixture import (
    coefficients,
    combine,
    geometric_mixture,
    lam_from_beta,
    lerp,
    max_lam,
)

from .schedules import randn

means = st.floats(-2, 2)
variances = st.floats(0.2, 3)
shares = st.floats(0.02, 0.98)
lams = st.floats(-2, 4)
GRID = torch.linspace(-120, 120, 200_001, dtype=torch.float64)


def tensor(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def log_gaussian(mean: float, variance: float) -> torch.Tensor:
    return -0.5 * ((GRID - mean).square() / variance + math.log(2 * math.pi * variance))


def allowed_lam(share: float, variance_ref: float, variance_aligned: float) -> float:
    """A lam inside the open interval in which every precision is positive, well away from its ends."""
    highest = max_lam(tensor(variance_ref), tensor(variance_aligned))
    lowest = 1 - max_lam(tensor(variance_aligned), tensor(variance_ref))
    lowest, highest = max(lowest, -3.0), min(highest, 4.0)
    return lowest + (0.1 + 0.8 * share) * (highest - lowest)


@given(means, variances, means, variances, shares)
def test_mixture_and_normaliser_are_those_of_numerical_integration(
    m_ref: float, v_ref: float, m_aligned: float, v_aligned: float, share: float
) -> None:
    lam = allowed_lam(share, v_ref, v_aligned)
    log_density = (1 - lam) * log_gaussian(m_ref, v_ref) + lam * log_gaussian(m_aligned, v_aligned)
    weights = log_density.softmax(0)
    expected_mean = (weights * GRID).sum()
    expected_variance = (weights * (GRID - expected_mean).square()).sum()

    given_ = tensor(m_ref), tensor(v_ref), tensor(m_aligned), tensor(v_aligned)
    mean, variance = geometric_mixture(*given_, lam)
    torch.testing.assert_close(mean[0], expected_mean, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(variance[0], expected_variance, atol=1e-7, rtol=1e-7)


@given(variances, st.floats(0.01, 2))
def test_the_largest_lam_is_sharp_and_named(v_ref: float, excess: float) -> None:
    reference, aligned = tensor(v_ref), tensor(v_ref + excess)
    highest = max_lam(reference, aligned)
    mean = tensor(0.0)
    _, variance = geometric_mixture(mean, reference, mean, aligned, highest * (1 - 1e-6))
    assert variance > 0
    with pytest.raises(LamError, match=rf"{highest:.6g}"):
        geometric_mixture(mean, reference, mean, aligned, highest * (1 + 1e-6))


@given(variances, st.floats(0.01, 2))
def test_the_smallest_lam_is_sharp_too(v_aligned: float, excess: float) -> None:
    reference, aligned, mean = tensor(v_aligned + excess), tensor(v_aligned), tensor(0.0)
    assert max_lam(reference, aligned) == math.inf
    lowest = -v_aligned / excess
    geometric_mixture(mean, reference, mean, aligned, lowest * (1 - 1e-6))
    with pytest.raises(LamError, match="strictly between"):
        geometric_mixture(mean, reference, mean, aligned, lowest * (1 + 1e-6))


def test_one_bad_element_or_one_bad_image_is_enough() -> None:
    mean, reference = torch.zeros(2, 3), torch.ones(3)
    aligned = torch.tensor([1.0, 2.0, 0.5])
    assert max_lam(reference, aligned) == 2
    with pytest.raises(LamError):
        geometric_mixture(mean, reference, mean, aligned, torch.tensor([1.0, 2.0]))


@given(st.integers(0, 99), lams)
def test_equal_variances_are_a_lerp_of_means(seed: int, lam: float) -> None:
    a, b, variance = randn(2, 5, seed=seed), randn(2, 5, seed=seed + 1), randn(2, 5, seed=seed + 2).exp()
    mean, mixed_variance = geometric_mixture(a, variance, b, variance, lam)
    torch.testing.assert_close(mean, lerp(a, b, lam))
    torch.testing.assert_close(mixed_variance, variance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("as_given", [float, lambda lam: torch.tensor([lam] * 4), lambda lam: torch.tensor(lam)])
@pytest.mark.parametrize(("lam", "k"), [(0.0, 0), (1.0, 1)])
def test_zero_and_one_are_bitwise_the_models(
    dtype: torch.dtype, as_given: Callable[[float], float | torch.Tensor], lam: float, k: int
) -> None:
    # magnitudes far apart, and a zero of either sign: a + (b - a) would lose bits
    pair = [randn(4, 9, seed=s).exp().mul(10**s).to(dtype).view(-1) for s in (1, 3)]
    pair[0][0], pair[1][0] = 0.0, -0.0
    a, b = (values.view(4, 9) for values in pair)
    given_ = as_given(lam)
    for result in (lerp(a, b, given_), combine([a, b], [1 - given_, given_])):
        assert torch.equal(result, (a, b)[k])
        assert torch.equal(result.signbit(), (a, b)[k].signbit())
    mean, variance = geometric_mixture(a, b.abs() + 1, b, a.abs() + 2, given_)
    assert torch.equal(mean, (a, b)[k])
    assert torch.equal(variance, (b.abs() + 1, a.abs() + 2)[k])


@given(st.integers(0, 99), st.lists(lams, min_size=3, max_size=3))
def test_one_lam_per_image_is_each_image_by_itself(seed: int, row: list[float]) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        a, b, c = (randn(3, 2, 5, seed=seed + k).to(dtype) for k in range(3))
        together = lerp(a, b, torch.tensor(row, dtype=torch.float64))
        three = combine([a, b, c], coefficients([torch.tensor(row, dtype=torch.float64), 0.25]))
        for k, lam in enumerate(row):
            assert torch.equal(together[k], lerp(a[k], b[k], lam))
            torch.testing.assert_close(three[k], combine([a[k], b[k], c[k]], coefficients([lam, 0.25])))


@given(st.integers(0, 99), lams, lams)
def test_several_anchors_compose_in_any_grouping_and_order(seed: int, lam: float, mu: float) -> None:
    a, b, c = (randn(2, 5, seed=seed + k) for k in range(3))
    together = combine([a, b, c], coefficients([lam, mu]))
    torch.testing.assert_close(together, a + lam * (b - a) + mu * (c - a), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(combine([a, c, b], coefficients([mu, lam])), together, atol=1e-9, rtol=1e-9)
    # (a, b) first, then c: the inner pair gets the weights that are left, renormalised
    if abs(1 - mu) > 0.05:
        nested = lerp(lerp(a, b, lam / (1 - mu)), c, mu)
        torch.testing.assert_close(nested, together, atol=1e-9, rtol=1e-9)


def test_the_model_that_has_no_weight_cannot_spoil_the_other() -> None:
    good, spoilt = randn(2, 5, seed=1), torch.full((2, 5), torch.nan, dtype=torch.float64)
    assert lerp(good, spoilt, 0.0) is good
    assert lerp(spoilt, good, 1) is good
    assert torch.equal(lerp(good, spoilt, torch.zeros(2)), good)


def test_only_what_has_weight_is_needed_and_one_alone_is_untouched() -> None:
    a, b, c = (randn(2, 5, seed=k) for k in range(3))
    assert combine([a, None, None], coefficients([0.0, 0.0])) is a
    assert combine([None, None, c], coefficients([0.0, 1.0])) is c
    assert combine([None, b], coefficients([torch.ones(2)])) is b
    torch.testing.assert_close(combine([None, b, c], coefficients([0.25, 0.75])), 0.25 * b + 0.75 * c)
    assert torch.equal(combine([a, b, None], coefficients([0.3, 0.0])), lerp(a, b, 0.3))
    with pytest.raises(LamError, match="Prediction 1"):
        combine([a, None], [0.5, 0.5])
    with pytest.raises(LamError, match="2 predictions"):
        combine([a, b], [1.0])


def test_rows_in_which_one_prediction_has_all_the_weight_are_bitwise_that_one() -> None:
    predictions = [randn(5, 3, seed=k) * 10.0 ** (-7 * k) for k in range(3)]  # a difference would lose digits
    lam, mu = torch.tensor([0.0, 1.0, 0.0, 0.5, 2.0]), torch.tensor([0.0, 0.0, 1.0, 0.25, -1.0])
    mixed = combine(predictions, coefficients([lam, mu]))
    for row in range(3):
        assert torch.equal(mixed[row], predictions[row][row])
    torch.testing.assert_close(mixed[4], 2 * predictions[1][4] - predictions[2][4])


def test_lam_and_beta() -> None:
    assert lam_from_beta(0.2, 0.1) == 2
    assert lam_from_beta(0.2, math.inf) == 0
    with pytest.raises(LamError, match="anchor_beta"):
        lam_from_beta(0.0, 1.0)
