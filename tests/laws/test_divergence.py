import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from deradiff.divergence import (
    effective_sample_size,
    gaussian_kl,
    implicit_reward_increment,
    path_kl,
    q_increment,
    resampling_log_weight_increment,
    reweighting_log_weight,
    step_kl,
)
from deradiff.mixture import geometric_mixture
from deradiff.noise import NoiseLevel
from deradiff.predict import convert_difference

from .schedules import randn

lams = st.floats(-2, 4)
times = st.floats(0.02, 0.98)
Schedule = Callable[[Tensor], NoiseLevel]


def variance_preserving(t: Tensor) -> NoiseLevel:
    return NoiseLevel((t * math.pi / 2).cos(), (t * math.pi / 2).sin())


def flow(t: Tensor) -> NoiseLevel:
    return NoiseLevel(1 - t, t)


def posterior(level_t: NoiseLevel, level_s: NoiseLevel) -> tuple[Tensor, Tensor, Tensor]:
    """(A, B, V) of ``q(x_s | x_t, x_0) = N(A x_t + B x_0, V)``, by conditioning the joint Gaussian of (x_s, x_t)."""
    transition = level_t.alpha / level_s.alpha
    gain = transition * level_s.sigma**2 / level_t.sigma**2
    return gain, level_s.alpha - gain * level_t.alpha, level_s.sigma**2 - gain * transition * level_s.sigma**2


@given(st.integers(0, 99))
def test_gaussian_kl_is_that_of_torch(seed: int) -> None:
    m_p, m_q, v_p, v_q = (randn(3, 2, 4, seed=seed + k) for k in range(4))
    v_p, v_q = v_p.exp(), v_q.exp()
    expected = kl_divergence(Normal(m_p, v_p.sqrt()), Normal(m_q, v_q.sqrt())).sum((1, 2))
    torch.testing.assert_close(gaussian_kl(m_p, v_p, m_q, v_q), expected)


@pytest.mark.parametrize("schedule", [variance_preserving, flow])
@given(times, times, lams, st.integers(0, 99))
def test_step_kl_is_the_kl_of_the_ancestral_kernels(
    schedule: Schedule, t: float, s: float, lam: float, seed: int
) -> None:
    if abs(t - s) < 0.01:
        return
    level_t, level_s = (schedule(torch.tensor(time).double()) for time in (max(t, s), min(t, s)))
    x_t, x_0, difference = (randn(3, 2, 4, seed=seed + k) for k in range(3))
    a, b, v = posterior(level_t, level_s)
    reference, realigned = a * x_t + b * x_0, a * x_t + b * (x_0 + lam * difference)
    expected = gaussian_kl(realigned, v, reference, v)
    torch.testing.assert_close(step_kl(difference, level_t, level_s, lam), expected, atol=1e-8, rtol=1e-8)
    row = torch.tensor([lam, 0.0, 1.0], dtype=torch.float64)
    by_image = step_kl(difference, level_t, level_s, row)
    torch.testing.assert_close(by_image[0], expected[0], atol=1e-8, rtol=1e-8)
    assert by_image[1] == 0


@pytest.mark.parametrize("schedule", [variance_preserving, flow])
@given(st.floats(0.1, 0.9), st.integers(0, 99))
def test_q_is_the_small_step_limit_of_step_kl(schedule: Schedule, t: float, seed: int) -> None:
    lam, difference_x0 = 1.7, randn(2, 5, seed=seed)
    errors = []
    for step in (1e-2, 1e-3):
        level_t, level_s = (schedule(torch.tensor(time).double()) for time in (t, t * (1 - step)))
        difference_eps = convert_difference(difference_x0, level_t, "sample", "epsilon")
        q = q_increment(difference_eps, level_t, level_s)
        exact = 2 * step_kl(difference_x0, level_t, level_s, lam) / lam**2
        torch.testing.assert_close(path_kl(q, lam), 0.5 * lam**2 * q)
        errors.append(((exact - q).abs() / q).max())
    assert errors[0] < 0.3
    assert errors[1] < 0.15 * errors[0]


def test_the_ends_of_a_schedule() -> None:
    ends = NoiseLevel(torch.tensor([0.0, 0.5, 1.0]).double(), torch.tensor([1.0, 0.5, 0.0]).double())
    difference_v = randn(1, 4)
    at_start = convert_difference(difference_v, ends[0], "flow_prediction", "epsilon")
    assert q_increment(at_start, ends[0], ends[1]) == 0
    assert q_increment(difference_v, ends[1], ends[2]) == math.inf
    assert q_increment(0 * difference_v, ends[1], ends[2]) == 0
    # an interval from alpha = 0 is taken as if ||Δx0|| were constant on it: ∫ ||Δeps||² d rho = ||Δeps||² at its end
    at_half = resampling_log_weight_increment(difference_v, ends[0], ends[1], ends[1], 0.5)
    torch.testing.assert_close(at_half, -0.125 * difference_v.square().sum(1))
    assert resampling_log_weight_increment(at_start, ends[0], ends[0], ends[1], 0.5) == 0


@given(st.integers(0, 99), st.floats(0, 1))
def test_node_weights_add_up_to_the_trapezoid(seed: int, lam: float) -> None:
    levels = variance_preserving(torch.tensor([0.9, 0.6, 0.5, 0.1]).double())
    eps = randn(4, 2, 3, seed=seed)
    visits = [(max(k - 1, 0), k, min(k + 1, 3)) for k in range(4)]
    total = sum(resampling_log_weight_increment(eps[k], levels[i], levels[k], levels[j], lam) for i, k, j in visits)
    integrand = -0.5 * lam * (1 - lam) * eps.square().sum(2)
    torch.testing.assert_close(total, torch.trapezoid(integrand, levels.log_snr, dim=0))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=9))
def test_effective_sample_size_is_a_count(row: list[float]) -> None:
    weights = torch.tensor(row, dtype=torch.float64)
    size = effective_sample_size(weights)
    assert 1 - 1e-9 <= size <= len(row) + 1e-9
    torch.testing.assert_close(effective_sample_size(weights + 700), size)
    torch.testing.assert_close(effective_sample_size(torch.zeros(3, 4)), torch.full((3,), 4.0, dtype=torch.float64))
    one = torch.tensor([0.0, -math.inf, -math.inf])
    assert effective_sample_size(one) == 1


class Chain:
    """A reverse chain on Gaussians N(m, v): DDPM kernels with the exact denoiser of each, n images of one pixel."""

    def __init__(self, steps: int, reference: tuple[float, float], aligned: tuple[float, float]) -> None:
        self.levels = variance_preserving(torch.linspace(0.97, 0.02, steps + 1).double())
        self.models = reference, aligned

    def eps(self, model: tuple[float, float], x_t: Tensor, level: NoiseLevel) -> Tensor:
        m, v = model
        return level.sigma * (x_t - level.alpha * m) / (level.alpha**2 * v + level.sigma**2)

    def kernel(self, k: int, x_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means of the reference's and the aligned step from x_t, and their common variance."""
        level_t = self.levels[k]
        a, b, v = posterior(level_t, self.levels[k + 1])
        x_0 = [(x_t - level_t.sigma * self.eps(model, x_t, level_t)) / level_t.alpha for model in self.models]
        return a * x_t + b * x_0[0], a * x_t + b * x_0[1], v

    def run(self, lam: float, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Samples (n, 1), L (n,) and Q (n,) of paths drawn at lam."""
        x = randn(n, 1, seed=seed)
        reward, q = torch.zeros(n).double(), torch.zeros(n).double()
        for k in range(len(self.levels.alpha) - 1):
            reference, aligned, v = self.kernel(k, x)
            noise = randn(n, 1, seed=1000 * seed + k + 1)
            difference = aligned - reference
            reward = reward + implicit_reward_increment(difference, v.sqrt(), noise, lam)
            q = q + difference.square().sum(1) / v
            x = reference + lam * difference + v.sqrt() * noise
        return x, reward, q

    def exact(self, lam: float) -> tuple[Tensor, Tensor]:
        """Mean and variance of the last state under ``p_ref(path)^(1 - lam) p_aligned(path)^lam``, by precisions."""
        n = len(self.levels.alpha)
        precision, potential = torch.zeros(n, n).double(), torch.zeros(n).double()
        precision[0, 0] = 1
        for k in range(n - 1):
            for which, share in ((0, 1 - lam), (1, lam)):
                origin = self.kernel(k, torch.zeros(1, 1).double())
                slope = self.kernel(k, torch.ones(1, 1).double())[which] - origin[which]
                row = torch.zeros(n).double()
                row[k + 1], row[k] = 1, -float(slope)
                precision += share * row[:, None] * row / origin[2]
                potential += share * row * float(origin[which]) / origin[2]
        covariance = torch.linalg.inv(precision)
        return (covariance @ potential)[-1], covariance[-1, -1]


def weighted_moments(x: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    weights = log_weights.softmax(0)
    mean = (weights * x[:, 0]).sum()
    return mean, (weights * (x[:, 0] - mean).square()).sum()


@pytest.mark.parametrize(("lam", "target"), [(0.0, 0.5), (0.0, 1.0), (0.5, 0.5), (0.5, 1.0), (1.0, 0.25), (1.0, 1.3)])
def test_reweighting_reproduces_the_exact_mixture(lam: float, target: float) -> None:
    # the two variances differ, so Δ depends on x_t and the stepwise mixture is not the mixture
    chain = Chain(8, reference=(0.0, 1.0), aligned=(0.6, 0.6))
    x, reward, q = chain.run(lam, n=100_000, seed=3)
    log_weights = reweighting_log_weight(reward, q, lam, target)
    size = effective_sample_size(log_weights)
    mean, variance = weighted_moments(x, log_weights)
    exact_mean, exact_variance = chain.exact(target)
    error = float((exact_variance / size).sqrt())
    assert size > 2000
    assert float(mean - exact_mean) == pytest.approx(0, abs=5 * error)
    assert float(variance / exact_variance) == pytest.approx(1, abs=8 * float(size) ** -0.5)


def test_where_the_lam_of_the_draw_and_of_the_target_agree() -> None:
    reward, q = randn(5, seed=1), randn(5, seed=2).exp()
    for lam in (0.0, 1.0):
        assert torch.equal(reweighting_log_weight(reward, q, lam, lam), 0 * reward)
    # in between the stepwise normaliser is left: constant, so no weight at all, where Q is
    torch.testing.assert_close(reweighting_log_weight(reward, q, 0.5, 0.5), -0.125 * q)
    chain = Chain(8, reference=(0.0, 1.0), aligned=(0.8, 1.0))
    _, reward, q = chain.run(0.5, n=1000, seed=5)
    torch.testing.assert_close(q, q[0].expand(1000))
    torch.testing.assert_close(effective_sample_size(reweighting_log_weight(reward, q, 0.5, 0.5)).item(), 1000.0)


def test_the_implicit_reward_is_the_log_ratio_of_the_paths() -> None:
    chain = Chain(3, reference=(0.0, 1.0), aligned=(0.8, 0.4))
    lam, noise = 1.6, randn(6, 1, seed=4)
    for k in range(3):
        reference, aligned, v = chain.kernel(k, randn(6, 1, seed=k))
        drawn = reference + lam * (aligned - reference) + v.sqrt() * noise
        ratio = Normal(aligned, v.sqrt()).log_prob(drawn) - Normal(reference, v.sqrt()).log_prob(drawn)
        increment = implicit_reward_increment(aligned - reference, v.sqrt(), noise, lam)
        torch.testing.assert_close(increment, ratio.sum(1))


def test_path_kl_is_the_mean_log_ratio_to_the_reference() -> None:
    lam = 0.7
    _, reward, q = Chain(8, reference=(0.0, 1.0), aligned=(0.8, 0.4)).run(lam, n=100_000, seed=7)
    log_ratio = lam * reward + 0.5 * lam * (1 - lam) * q
    error = (log_ratio - path_kl(q, lam)).std() / len(q) ** 0.5
    assert float(path_kl(q, lam).mean() - log_ratio.mean()) == pytest.approx(0, abs=4 * float(error))


@pytest.mark.parametrize("lam", [0.3, 0.5, 1.5])
def test_resampling_weights_restore_the_mixture_that_single_steps_miss(lam: float) -> None:
    chain = Chain(300, reference=(0.0, 1.0), aligned=(0.8, 0.25))
    n, last = 20_000, len(chain.levels.alpha) - 1
    x, log_weights = randn(n, 1, seed=11), torch.zeros(n).double()
    for k in range(last + 1):
        level = chain.levels[k]
        around = chain.levels[max(k - 1, 0)], level, chain.levels[min(k + 1, last)]
        eps = [chain.eps(model, x, level) for model in chain.models]
        log_weights = log_weights + resampling_log_weight_increment(eps[1] - eps[0], *around, lam)
        if k < last:
            reference, aligned, v = chain.kernel(k, x)
            x = reference + lam * (aligned - reference) + v.sqrt() * randn(n, 1, seed=10_000 + k)
    # the target is the mixture of the two noised marginals at the last level
    alpha, sigma = chain.levels.alpha[-1], chain.levels.sigma[-1]
    (m_ref, v_ref), (m_aligned, v_aligned) = ((alpha * m, alpha**2 * v + sigma**2) for m, v in chain.models)
    mean, variance = geometric_mixture(m_ref, v_ref, m_aligned, v_aligned, lam)
    size = float(effective_sample_size(log_weights))
    weighted_mean, weighted_variance = weighted_moments(x, log_weights)
    _, plain_variance = weighted_moments(x, torch.zeros(n).double())
    assert float(weighted_mean - mean) == pytest.approx(0, abs=5 * float(variance) ** 0.5 * size**-0.5 + 0.01)
    assert float(weighted_variance / variance) == pytest.approx(1, abs=8 * size**-0.5 + 0.02)
    assert abs(float(plain_variance / variance) - 1) > 0.1
