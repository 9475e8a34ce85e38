"""Laws of the optimum, on distributions whose tilted expectations are known in closed form."""

import numpy as np
import pytest
from scipy.stats import binomtest

from deradiff.compare.optimum import LEAST_ESS, RETRAINED, ImportanceWeights, Optimum, compute_optimum

RNG = np.random.default_rng(11)
BETAS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize("beta", [1.0, 2.0, 8.0])
def test_a_gaussian_is_tilted_as_known(beta: float) -> None:
    """N(0, 1) times exp(x / beta) is N(1 / beta, 1); the ESS of N samples tends to N exp(-1 / beta²)."""
    x = RNG.normal(size=(1, 200_000))
    weighed = ImportanceWeights.from_scores(x, beta)
    assert weighed.mean(x) == pytest.approx(1 / beta, abs=0.02)
    assert weighed.mean(x**2) == pytest.approx(1 + 1 / beta**2, abs=0.05)
    assert weighed.ess / 200_000 == pytest.approx(np.exp(-1 / beta**2), abs=0.03)


def test_weights_know_each_prompt_alone_and_no_zero_of_the_reward() -> None:
    x = RNG.normal(size=(3, 50))
    shifted = ImportanceWeights.from_scores(x + np.array([[0.0], [500.0], [-500.0]]), 0.5)
    assert shifted.weights == pytest.approx(ImportanceWeights.from_scores(x, 0.5).weights)
    assert shifted.weights.sum(axis=1) == pytest.approx(1)


def test_from_all_samples_alike_to_the_best_alone() -> None:
    x = RNG.normal(size=(4, 50))
    assert ImportanceWeights.from_scores(x, 1e6).ess == pytest.approx(50, rel=1e-3)
    best = ImportanceWeights.from_scores(x, 1e-3)
    assert best.ess == pytest.approx(1, abs=1e-3)
    assert best.mean(x) == pytest.approx(x.max(axis=1))


def test_an_arm_that_draws_from_the_optimum_errs_by_nothing_as_often_as_intervals_say_or_more() -> None:
    """Prompts of different means; the reference arm errs by what the tilt adds."""
    covered, trials = 0, 40

    def experiment() -> Optimum:
        base = RNG.normal(size=(12, 1))
        pool = base + RNG.normal(size=(12, 200))
        arms = {
            RETRAINED: [base + 1 / beta + RNG.normal(size=(2, 12, 4)) for beta in BETAS],
            "reference": [base + RNG.normal(size=(12, 4))] * 3,
        }
        return compute_optimum("own", BETAS, pool, pool, arms)

    for _ in range(trials):
        found = experiment()
        covered += sum(row.error.low <= 0 <= row.error.high for row in found.arm_rows(RETRAINED))
    assert binomtest(covered, 3 * trials, 0.95, alternative="less").pvalue > 1e-3
    found = experiment()
    assert (found.prompts, found.refused) == (12, ())
    assert [row.error.mean for row in found.arm_rows("reference")] == pytest.approx([-1, -0.5, -0.25], abs=0.6)


def test_known_errors_are_shares_of_the_optimums_spread() -> None:
    pool = np.tile(np.repeat([0.0, 1.0], 20), (3, 1))  # a coin: the optimum's mean is 1 / (1 + exp(-1 / beta))
    best = [1 / (1 + np.exp(-1 / beta)) for beta in BETAS]
    noise = RNG.normal(size=(3, 5))
    arms = {"off": [mean + 0.1 * (1 + place) + 0 * noise for place, mean in enumerate(best)]}
    rows = compute_optimum("own", BETAS, pool, 10 * pool, arms={"off": [10 * table for table in arms["off"]]}).rows
    assert [row.optimum for row in rows] == pytest.approx([10 * mean for mean in best])
    assert [row.error.mean for row in rows] == pytest.approx([1, 2, 3])
    assert [row.share_of_spread for row in rows] == pytest.approx(
        [0.1 * place / (best[0] - best[2]) for place in (1, 2, 3)]
    )


def test_prompts_and_betas_of_too_few_effective_samples_are_left_out_of_all_arms() -> None:
    calm, wild = np.zeros((4, 40)), np.linspace(0, 100, 40) * np.ones((2, 1))
    pool = np.concatenate([calm, wild])
    arms = {"off": [np.arange(6.0)[:, None] * np.ones((6, 2))] * 2}
    found = compute_optimum("own", (1.0, 1000.0), pool, pool, arms)
    assert (found.prompts, found.refused) == (4, ())  # the wild prompts would do at beta 1000, but not at 1
    assert [row.mean for row in found.rows] == [1.5, 1.5]
    found = compute_optimum("own", (1.0, 1000.0), pool[2:], pool[2:], {"off": [own[2:] for own in arms["off"]]})
    assert (found.prompts, found.refused) == (2, ())  # half of them are enough
    found = compute_optimum("own", (1.0, 1000.0), pool[3:], pool[3:], {"off": [own[3:] for own in arms["off"]]})
    assert (found.prompts, found.refused) == (3, (1.0,))
    assert [row.beta for row in found.rows] == [1000.0]
    assert found.warning is not None
    assert "at beta 1 (1." in found.warning
    enough = compute_optimum(
        "own", (1.0, 2.0), calm[:, :LEAST_ESS], calm[:, :LEAST_ESS], {"off": [np.zeros((4, 2))] * 2}
    )
    assert (enough.prompts, enough.refused) == (4, ())
    alone = compute_optimum("own", (1.0, 2.0), pool[3:5], pool[3:5], {"off": [own[3:5] for own in arms["off"]]})
    assert (alone.prompts, alone.refused, alone.rows) == (0, (1.0, 2.0), ())  # one prompt has no interval
    few = compute_optimum("own", (1.0, 2.0), pool[:, : LEAST_ESS - 1], pool[:, : LEAST_ESS - 1], arms)
    assert (few.prompts, few.refused, few.rows) == (0, (1.0, 2.0), ())
