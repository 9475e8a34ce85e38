import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from deradiff.analysis.reweight import path_weights
from deradiff.divergence import (
    effective_sample_size,
    implicit_reward_increment,
    log_weight_increment,
    path_kl,
    q_increment,
)
from deradiff.mixture import geometric_mixture
from deradiff.noise import NoiseLevel
from deradiff.predict import convert_difference

from .schedules import randn

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


@pytest.mark.parametrize("schedule", [variance_preserving, flow])
@given(st.floats(0.1, 0.9), st.integers(0, 99))
def test_path_kl_is_the_kl_of_the_kernels_of_small_steps(schedule: Schedule, t: float, seed: int) -> None:
    lam, difference_x0 = 1.7, randn(2, 5, seed=seed)
    errors = []
    for step in (1e-2, 1e-3):
        level_t, level_s = (schedule(torch.tensor(time).double()) for time in (t, t * (1 - step)))
        a, b, v = posterior(level_t, level_s)
        assert a > 0
        kernel = (0.5 * lam**2 * b**2 / v * difference_x0.square()).sum(1)
        difference_eps = convert_difference(difference_x0, level_t, "sample", "epsilon")
        kl = 2 * path_kl(q_increment(difference_eps, level_t, level_t, level_s), lam)  # half of the interval is behind
        errors.append(((kernel - kl).abs() / kl).max())
    assert errors[0] < 0.3
    assert errors[1] < 0.15 * errors[0]


def test_the_ends_of_a_schedule() -> None:
    ends = NoiseLevel(torch.tensor([0.0, 0.5, 1.0]).double(), torch.tensor([1.0, 0.5, 0.0]).double())
    difference_v = randn(1, 4)
    at_start = convert_difference(difference_v, ends[0], "flow_prediction", "epsilon")
    assert q_increment(at_start, ends[0], ends[0], ends[1]) == 0
    # from alpha = 0, as if ||Δx0|| were constant; to sigma = 0, as if the scores' difference were
    for around, last in (((ends[0], ends[1], ends[1]), False), ((ends[1], ends[1], ends[2]), True)):
        torch.testing.assert_close(q_increment(difference_v, *around, last=last), difference_v.square().sum(1))
        assert q_increment(0 * difference_v, *around, last=last) == 0
    levels = variance_preserving(torch.tensor([0.6, 0.5]).double())
    whole, half = (q_increment(difference_v, levels[0], levels[0], levels[1], last=last) for last in (True, False))
    torch.testing.assert_close(whole, 2 * half)
    last = implicit_reward_increment(torch.ones(1).double(), difference_v, ends[1], ends[2], None, 2.0)
    assert last == 1.5


@given(st.integers(0, 99), st.floats(-1, 3))
def test_increments_add_up_to_the_trapezoid(seed: int, lam: float) -> None:
    levels = variance_preserving(torch.tensor([0.9, 0.6, 0.5, 0.1]).double())
    eps = randn(4, 2, 3, seed=seed)
    q = torch.stack([q_increment(eps[k], levels[max(k - 1, 0)], levels[k], levels[min(k + 1, 3)]) for k in range(4)])
    expected = torch.trapezoid(eps.square().sum(2), levels.log_snr, dim=0)
    torch.testing.assert_close(q.sum(0), expected)
    torch.testing.assert_close(log_weight_increment(q, lam).sum(0), -0.5 * lam * (1 - lam) * expected)
    torch.testing.assert_close(path_kl(q, lam).sum(0), 0.5 * lam**2 * expected)
    by_row = torch.tensor([lam, 0.0], dtype=torch.float64)
    torch.testing.assert_close(path_kl(q, by_row).sum(0), 0.5 * by_row**2 * expected)


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

    def run(self, lam: float, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Samples (n, 1), L (n,) and Q (n,) of paths drawn at lam."""
        x, last = randn(n, 1, seed=seed), len(self.levels.alpha) - 1
        reward, q = torch.zeros(n).double(), torch.zeros(n).double()
        for k in range(last + 1):
            level, ahead = self.levels[k], self.levels[min(k + 1, last)]
            reference, aligned = (self.eps(model, x, level) for model in self.models)
            noise = randn(n, 1, seed=1000 * seed + k + 1) if k < last else None
            own = q_increment(aligned - reference, self.levels[max(k - 1, 0)], level, ahead)
            q = q + own
            reward = reward + implicit_reward_increment(own, aligned - reference, level, ahead, noise, lam)
            if noise is not None:
                a, b, v = posterior(level, ahead)
                x_0 = (x - level.sigma * (reference + lam * (aligned - reference))) / level.alpha
                x = a * x + b * x_0 + v.sqrt() * noise
        return x, reward, q

    def marginal(self, model: int) -> Normal:
        """The exact distribution of the last state under one of the models."""
        m, v = self.models[model]
        alpha, sigma = self.levels.alpha[-1], self.levels.sigma[-1]
        return Normal(alpha * m, (alpha**2 * v + sigma**2).sqrt())

    def exact(self, lam: float) -> tuple[Tensor, Tensor]:
        """Mean and variance of the geometric mixture of the two."""
        reference, aligned = self.marginal(0), self.marginal(1)
        moments = (reference.mean, reference.variance, aligned.mean, aligned.variance)
        return geometric_mixture(*moments, lam)


def weighted_moments(x: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    weights = log_weights.softmax(0)
    mean = (weights * x[:, 0]).sum()
    return mean, (weights * (x[:, 0] - mean).square()).sum()


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_the_implicit_reward_is_the_log_ratio_of_the_densities_at_the_image(lam: float) -> None:
    errors = []
    for steps in (50, 800):
        chain = Chain(steps, reference=(0.0, 1.0), aligned=(0.8, 0.4))
        x, reward, _ = chain.run(lam, n=4000, seed=2)
        ratio = (chain.marginal(1).log_prob(x) - chain.marginal(0).log_prob(x))[:, 0]
        errors.append(float((reward - ratio).square().mean().sqrt() / ratio.std()))
    assert errors[1] < 0.12
    assert errors[1] < 0.5 * errors[0]  # the stochastic integral converges as the root of the step


@pytest.mark.parametrize(
    ("sampled", "target"),
    [((0.0,), 0.5), ((0.0,), 1.0), ((0.5,), 0.5), ((0.5,), 1.0), ((1.0,), 0.25), ((0.0, 1.0), 0.4), ((0.0, 0.3), 0.7)],
)
def test_reweighting_reproduces_the_exact_mixture(sampled: Sequence[float], target: float) -> None:
    # the two variances differ, so Δ depends on x_t and the stepwise mixture is not the mixture
    chain = Chain(300, reference=(0.0, 1.0), aligned=(0.6, 0.5))
    runs = [chain.run(lam, n=20_000, seed=3 + place) for place, lam in enumerate(sampled)]
    x, reward, q = (torch.cat(parts) for parts in zip(*runs, strict=True))
    weights = torch.from_numpy(path_weights(reward[None].numpy(), q[None].numpy(), sampled, target))[0]
    size = float(1 / weights.square().sum())
    mean, variance = weighted_moments(x, weights.log())
    exact_mean, exact_variance = chain.exact(target)
    assert size > 2000
    assert float(mean - exact_mean) == pytest.approx(0, abs=5 * float(exact_variance / size) ** 0.5 + 0.005)
    assert float(variance / exact_variance) == pytest.approx(1, abs=8 * size**-0.5)


def test_paths_of_one_lam_need_no_weight_where_nothing_is_to_be_moved() -> None:
    reward, q = randn(2, 5, seed=1).numpy(), randn(2, 5, seed=2).exp().numpy()
    for lam in (0.0, 1.0):
        np.testing.assert_allclose(path_weights(reward, q, [lam], lam), 0.2)
    # in between the stepwise normaliser is left: constant, so no weight at all, where Q is
    expected = torch.from_numpy(-0.125 * q).softmax(1).numpy()
    np.testing.assert_allclose(path_weights(reward, q, [0.5], 0.5), expected)
    # half the paths at each of two equal lams are as all of them at one
    np.testing.assert_allclose(path_weights(reward, q, [0.3, 0.3], 0.6), path_weights(reward, q, [0.3], 0.6))


def test_path_kl_is_the_kl_of_the_images() -> None:
    chain = Chain(300, reference=(0.0, 1.0), aligned=(0.8, 0.4))
    _, _, q = chain.run(1.0, n=20_000, seed=7)
    exact = float(kl_divergence(chain.marginal(1), chain.marginal(0)))
    assert float(path_kl(q, 1.0).mean()) == pytest.approx(exact, rel=0.03)
    assert (path_kl(q, 0.0) == 0).all()


@pytest.mark.parametrize("lam", [0.3, 0.5, 1.5])
def test_log_weights_restore_the_mixture_that_single_steps_miss(lam: float) -> None:
    chain = Chain(300, reference=(0.0, 1.0), aligned=(0.8, 0.25))
    x, _, q = chain.run(lam, n=20_000, seed=11)
    log_weights = log_weight_increment(q, lam)
    mean, variance = chain.exact(lam)
    size = float(effective_sample_size(log_weights))
    weighted_mean, weighted_variance = weighted_moments(x, log_weights)
    _, plain_variance = weighted_moments(x, torch.zeros(len(x)).double())
    assert float(weighted_mean - mean) == pytest.approx(0, abs=5 * float(variance) ** 0.5 * size**-0.5 + 0.01)
    assert float(weighted_variance / variance) == pytest.approx(1, abs=8 * size**-0.5 + 0.02)
    assert abs(float(plain_variance / variance) - 1) > 0.1
