"""Laws of the surrogate: it keeps what was sampled, fills in by a Gaussian process, and draws as wide as that is."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from tests.search.worlds import GRID, IRREGULAR, LAMS, PROMPTS, SEEDS, Floats, World

from deradiff.search import surrogate
from deradiff.search.acquisition import SampleBlock
from deradiff.search.kernels import PinnedMatern, prior
from deradiff.search.surrogate import fit_surrogate

SHAPE = (PROMPTS, SEEDS, len(GRID))


@pytest.fixture
def fitted_to_few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a fit takes grows with the cube of their number; for laws that hold on average over worlds."""
    monkeypatch.setattr(surrogate, "FIT", 60)


def sampled(world: World, reward: str, *blocks: SampleBlock) -> Floats:
    """Scores of a reward on the whole grid, nan where no block is."""
    there = np.zeros(world.sampled.shape, bool)
    for block in blocks:
        there[np.ix_(block.prompts, block.seeds, block.lams)] = True
    return np.where(there, world.tables[reward], np.nan)


def test_what_was_sampled_is_kept_and_the_remainder_lies_on_the_curve_of_its_prompt() -> None:
    world = World(0)
    own = SampleBlock(range(PROMPTS), range(SEEDS), (0, 8, 16, 24, 32))
    for name, truth in world.tables.items():
        found, means = fit_surrogate(sampled(world, name, own), LAMS, 50), truth.mean(axis=1)
        np.testing.assert_allclose(found.table[:, own.lams], means[:, own.lams], atol=0.02)
        np.testing.assert_allclose(found.table, means, atol=0.06)
        np.testing.assert_allclose(found.samples[:, :, own.lams].mean(axis=0), means[:, own.lams], atol=0.02)


@pytest.mark.usefixtures("fitted_to_few_changes")
def test_a_lam_of_few_seeds_leans_on_its_neighbours_of_many() -> None:
    """What the surrogate makes of a noisy lam is nearer to the truth than its own mean."""
    many = SampleBlock(range(PROMPTS), range(SEEDS), (0, 8, 12, 20, 24))
    one = SampleBlock(range(PROMPTS), range(1), (16,))
    errors = []
    for seed in range(8):
        world = World(seed)
        truth = (world.tables["gold"][:, :, 16] - world.tables["gold"][:, :, 0]).mean()
        world.tables["gold"] += 0.5 * np.random.default_rng(seed).normal(size=SHAPE)
        scores = sampled(world, "gold", many, one)
        gold, alone = fit_surrogate(scores, LAMS, 1).table.mean(axis=0), scores[:, 0]
        errors.append((gold[16] - gold[0] - truth, (alone[:, 16] - alone[:, 0]).mean() - truth))
    leaning, alone = np.abs(errors).mean(axis=0)
    assert leaning < 0.8 * alone


@pytest.mark.parametrize("grid", [LAMS, tuple(2 * lam for lam in IRREGULAR)], ids=["even", "irregular"])
def test_it_is_the_posterior_of_one_gaussian_process_over_all_pairs(
    monkeypatch: pytest.MonkeyPatch, grid: tuple[float, ...]
) -> None:
    """Prompt by prompt, and all at once by scikit-learn: the same mean curve, and the same spread of a prompt."""
    monkeypatch.setattr(surrogate, "FIT", 10**6)
    world, half, last = World(0, lams=grid), grid.index(grid[-1] / 2), len(grid) - 1
    x = np.array(grid) / grid[-1]
    blocks = SampleBlock(range(6), range(2), (0, half, last)), SampleBlock(range(8), range(1), (0, last - 8))
    scores = sampled(world, "gold", *blocks)
    found = fit_surrogate(scores, grid, 2000)
    assert (found.table.shape, found.samples.shape) == ((8, len(x)), (2000, PROMPTS, len(x)))
    changes = scores - scores[:, :, [0]]
    prompts, seeds, lams = np.nonzero(np.isfinite(changes) & (x > 0))
    y, rows = changes[prompts, seeds, lams], np.stack([x[lams], prompts, seeds], axis=1)
    whole: Any = GaussianProcessRegressor(prior(), alpha=surrogate.NUGGET).fit(rows, y / y.std())
    for prompt in (0, 7, 20):  # of two seeds, of one, of none
        wanted = np.array([[lam, prompt, seed] for lam in x for seed in range(SEEDS)])
        mean, covariance = whole.predict(wanted, return_cov=True)
        by_lam = covariance.reshape(len(x), SEEDS, len(x), SEEDS).mean(axis=(1, 3))
        drawn = (found.samples[:, prompt] - found.samples[:, prompt, [0]]) / y.std()
        np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(np.diag(by_lam)), atol=0.05, rtol=0.1)
        error = 4 * drawn.std(axis=0) / np.sqrt(len(drawn)) + 0.01
        assert np.all(np.abs(drawn.mean(axis=0) - mean.reshape(len(x), SEEDS).mean(axis=1)) < error)

    # the mean over all prompts, between sampled lams
    wanted = np.array([[x[8], prompt, seed] for prompt in range(PROMPTS) for seed in range(SEEDS)])
    _, covariance = whole.predict(wanted, return_cov=True)
    mean = (found.samples[:, :, 8] - found.samples[:, :, 0]).mean(axis=1) / y.std()
    assert mean.std() == pytest.approx(np.sqrt(covariance.mean()), rel=0.1)


@pytest.mark.usefixtures("fitted_to_few_changes")
def test_its_prompts_differ_as_much_as_real_ones() -> None:
    """One seed at two lams: between them, prompts spread as they do where all is sampled, and not less."""
    shares = []
    for seed in range(10):
        world = World(seed, noise=0.3)
        own = SampleBlock(range(PROMPTS), range(1), (0, 16, 32))
        table = fit_surrogate(sampled(world, "proxy", own), LAMS, 100).table
        changes = world.tables["proxy"] - world.tables["proxy"][:, :, [0]]
        shares.append((table - table[:, [0]]).std(axis=0)[24] / changes.mean(axis=1).std(axis=0)[24])
    assert 0.75 < np.mean(shares) < 1.6


@pytest.mark.usefixtures("fitted_to_few_changes")
def test_draws_are_the_same_for_the_same_seed_and_hold_the_truth_as_often_as_they_spread() -> None:
    """Mean curves of what sampling everything gives, of worlds of which a tenth is known."""
    own = SampleBlock(range(PROMPTS), range(2), (0, 8, 16, 24, 32))
    held = []
    scores = sampled(World(0, noise=0.2), "proxy", own)
    for seed in range(8):
        world = World(seed, noise=0.2)
        scores = sampled(world, "proxy", own)
        drawn = fit_surrogate(scores, LAMS, 200).samples.mean(axis=1)
        low, high = np.quantile(drawn - drawn[:, [0]], [0.025, 0.975], axis=0)[:, 1:]
        truth = world.tables["proxy"].mean(axis=(0, 1))
        held.append(np.mean((low <= (truth - truth[0])[1:]) & ((truth - truth[0])[1:] <= high)))
    assert np.mean(held) > 0.8
    np.testing.assert_array_equal(fit_surrogate(scores, LAMS, 3).samples, fit_surrogate(scores, LAMS, 3).samples)
    assert (fit_surrogate(scores, LAMS, 3, seed=1).samples != fit_surrogate(scores, LAMS, 3).samples).any()


def test_prompts_that_were_not_sampled_are_drawn_and_not_in_the_table() -> None:
    """They begin where the others do, and may go elsewhere: their draws spread as the prompts that are known do."""
    world = World(0, noise=0.3)
    found = fit_surrogate(sampled(world, "proxy", SampleBlock(range(8), range(2), (0, 16, 32))), LAMS, 400)
    assert found.table.shape == (8, len(LAMS))
    at_end = found.samples[:, :, 32] - found.samples[:, :, 0]
    unknown, known = at_end[:, 8:].std(axis=0), at_end[:, :8].std(axis=0)
    assert unknown.min() > known.max()
    assert unknown.mean() > 1.3 * known.mean()
    between = found.table[:, 32] - found.table[:, 0]
    assert 0.5 * between.std() < unknown.mean() < 2 * between.std()


def test_the_kernel_is_that_of_a_process_known_to_be_0_at_0() -> None:
    x = np.array([[0.0], [0.1], [0.6], [1.0]])
    own: Any = PinnedMatern(0.7, nu=1.5)
    no_fit: Any = None
    known_at_0: Any = GaussianProcessRegressor(Matern(0.7, nu=1.5), alpha=1e-12, optimizer=no_fit)
    _, covariance = known_at_0.fit(np.zeros((1, 1)), np.zeros(1)).predict(x, return_cov=True)
    np.testing.assert_allclose(own(x), covariance, atol=1e-8)
    np.testing.assert_allclose(own.diag(x), np.diag(own(x)))
    np.testing.assert_allclose(own(x, x[1:]), own(x)[:, 1:])


def test_the_kernel_knows_its_gradient() -> None:
    """What scikit-learn's fit steps by."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.uniform(0.1, 1, 12), rng.integers(0, 3, 12), rng.integers(0, 2, 12)], axis=1)
    kernel = prior()
    _, slope = kernel(rows, eval_gradient=True)
    numeric: Any = approx_fprime(kernel.theta, lambda theta: kernel.clone_with_theta(theta)(rows).ravel(), 1e-6)
    np.testing.assert_allclose(slope.reshape(-1, len(kernel.theta)), numeric, atol=1e-4)
