"""Laws of the choice: known answers, invariances, and intervals that cover what they claim."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from deradiff.errors import ResultsError
from deradiff.recommend import Interval, Recommendation, paired_curve, recommend
from deradiff.results import Results

LAMS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
RISE = 1 - np.exp(-np.array(LAMS))
COLLAPSE = -np.clip(np.array(LAMS) - 1, 0, None)


def results(
    curves: Mapping[str, NDArray[np.float64]],
    *,
    lams: tuple[float, ...] = LAMS,
    prompts: int = 8,
    seeds: int = 4,
    noise: float = 0.05,
    rng_seed: int = 0,
) -> Results:
    """Scores around known curves (L,): a level per prompt, a change per (prompt, lam), noise per image."""
    rng = np.random.default_rng(rng_seed)
    shape = (prompts, seeds, len(lams))
    scores = {
        name: curve
        + rng.normal(size=(prompts, 1, 1))
        + noise * rng.normal(size=(prompts, 1, len(lams)))
        + noise * rng.normal(size=shape)
        for name, curve in curves.items()
    }
    return Results(
        prompts=tuple(f"prompt {p}" for p in range(prompts)),
        seeds=tuple(range(seeds)),
        lams=lams,
        scores=scores,
        images=np.full(shape, "x.png", dtype=object),
        anchor_beta=0.1,
    )


def choose(table: Results) -> Recommendation:
    return recommend(table, objective="proxy", guard="gold")


@pytest.mark.parametrize("rng_seed", range(20))
def test_a_guard_that_collapses_after_the_anchor_is_never_passed(rng_seed: int) -> None:
    choice = choose(results({"proxy": RISE, "gold": COLLAPSE}, rng_seed=rng_seed))
    assert choice.lam <= 1


def test_reward_hacking_is_named_with_the_lam_it_starts_at() -> None:
    choice = choose(results({"proxy": RISE, "gold": COLLAPSE}))
    assert choice.lam == 1
    assert choice.beta == pytest.approx(0.1)
    assert "From lam = 1.5" in choice.reason
    assert "reward hacking" in choice.reason
    assert choice.guard_change is not None
    assert choice.guard_change.low < 0 < choice.guard_change.high


def test_a_falling_guard_alone_is_not_reward_hacking() -> None:
    choice = choose(results({"proxy": -np.array(LAMS), "gold": COLLAPSE}))
    assert choice.lam == 0
    assert choice.beta is None
    assert "stay with the reference" in choice.reason
    assert "hacking" not in choice.reason


def test_an_objective_past_its_peak_is_not_reward_hacking() -> None:
    """Where the guard drops the objective is still above the reference, but no longer above its best."""
    peak = -0.2 * (np.array(LAMS) - 1) ** 2
    choice = choose(results({"proxy": peak, "gold": COLLAPSE}, noise=0.01))
    assert choice.lam == 1
    assert "hacking" not in choice.reason


@pytest.mark.parametrize("rng_seed", range(20))
def test_noise_in_the_objective_is_not_reward_hacking(rng_seed: int) -> None:
    """Without a true rise of the objective, a mean that happens to be higher where the guard drops is no sign."""
    table = results({"proxy": 0 * RISE, "gold": COLLAPSE}, rng_seed=rng_seed)
    proxy = paired_curve(table, "proxy")
    rises = any(change.low > 0 for change in proxy.change)
    assert rises or "hacking" not in choose(table).reason


@pytest.mark.parametrize("guard", [None, "gold"])
def test_a_guard_that_never_drops_leaves_the_best_objective(guard: str | None) -> None:
    peak = -((np.array(LAMS) - 1.5) ** 2)
    table = results({"proxy": peak, "gold": RISE})
    assert recommend(table, objective="proxy", guard=guard).lam == 1.5


def test_lam_is_not_held_back_by_prompts_of_different_difficulty() -> None:
    """Levels differ by 1 between prompts, the drop by 0.05 within them: only a paired test sees it."""
    table = results({"proxy": RISE, "gold": 0.1 * COLLAPSE}, noise=0.01)
    assert paired_curve(table, "gold").drops == (False, False, False, False, True, True, True)
    assert choose(table).lam == 1


def test_shifting_a_reward_changes_nothing_but_its_level() -> None:
    table = results({"proxy": RISE, "gold": COLLAPSE})
    shifted = dataclasses.replace(table, scores={name: s + 100 for name, s in table.scores.items()})
    before, after = choose(table), choose(shifted)
    assert (before.lam, before.reason, before.warnings) == (after.lam, after.reason, after.warnings)
    score = paired_curve(shifted, "gold").score[0].mean - paired_curve(table, "gold").score[0].mean
    assert score == pytest.approx(100)


def test_scaling_a_reward_keeps_the_choice() -> None:
    table = results({"proxy": RISE, "gold": COLLAPSE})
    scaled = dataclasses.replace(table, scores={name: 1000 * s for name, s in table.scores.items()})
    assert choose(scaled).lam == choose(table).lam


def test_the_order_of_prompts_and_seeds_changes_nothing() -> None:
    table = results({"proxy": RISE, "gold": COLLAPSE})
    rng = np.random.default_rng(1)
    prompts, seeds = rng.permutation(8), rng.permutation(4)
    permuted = dataclasses.replace(table, scores={n: s[prompts][:, seeds] for n, s in table.scores.items()})
    before, after = choose(table), choose(permuted)
    assert (before.lam, before.reason) == (after.lam, after.reason)
    assert before.objective_gain.high == pytest.approx(after.objective_gain.high)


def test_extrapolating_is_told() -> None:
    beyond = choose(results({"proxy": RISE, "gold": np.ones(7)}))
    assert beyond.lam > 1
    assert any("extrapolates beyond the anchor" in warning for warning in beyond.warnings)
    within = choose(results({"proxy": RISE, "gold": COLLAPSE}))
    assert within.lam <= 1
    assert not any("extrapolates" in warning for warning in within.warnings)


def test_repeating_every_seed_adds_no_confidence() -> None:
    """Prompts are the clusters: the same images twice must not narrow the interval."""
    table = results({"proxy": RISE})
    doubled = dataclasses.replace(
        table,
        seeds=tuple(range(8)),
        scores={"proxy": np.tile(table.scores["proxy"], (1, 2, 1))},
        images=np.tile(table.images, (1, 2, 1)),
    )
    for once, twice in zip(paired_curve(table, "proxy").change, paired_curve(doubled, "proxy").change, strict=True):
        assert (once.low, once.high) == pytest.approx((twice.low, twice.high))


def test_the_paired_interval_covers_and_the_guard_errs_as_often_as_claimed() -> None:
    """95 % coverage, and 5 % false drops where nothing changes, within 4 Monte-Carlo standard errors."""
    runs = 2000
    curves = [
        paired_curve(results({"r": np.array([0.0, 0.3, 0.0])}, lams=(0.0, 1.0, 2.0), seeds=2, rng_seed=i), "r")
        for i in range(runs)
    ]
    covered = np.mean([curve.change[1].low <= 0.3 <= curve.change[1].high for curve in curves])
    dropped = np.mean([curve.drops[2] for curve in curves])
    tolerance = 4 * np.sqrt(0.05 * 0.95 / runs)
    assert covered == pytest.approx(0.95, abs=tolerance)
    assert dropped == pytest.approx(0.05, abs=tolerance)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((-0.01724, -0.00586, 0.00552), "-0.006 (95 % interval -0.017 to +0.006)"),
        ((11.2, 30.9, 50.6), "+31 (95 % interval +11 to +51)"),
        ((2.0, 2.0, 2.0), "+2.000 (95 % interval +2.000 to +2.000)"),
    ],
)
def test_an_interval_is_told_in_digits_that_its_width_supports(limits: tuple[float, ...], words: str) -> None:
    low, mean, high = limits
    assert str(Interval(mean=mean, low=low, high=high)) == words


def test_the_reference_never_drops_below_itself() -> None:
    curve = paired_curve(results({"r": COLLAPSE}), "r")
    assert (curve.change[0].mean, curve.change[0].low, curve.change[0].high) == (0, 0, 0)
    assert not curve.drops[0]


def test_a_constant_change_without_noise_is_a_drop() -> None:
    table = results({"r": COLLAPSE}, noise=0.0)
    assert paired_curve(table, "r").drops[-1]


@pytest.mark.parametrize(
    ("curves", "guard", "prompts", "word"),
    [
        ({"proxy": RISE, "gold": COLLAPSE}, "gold", 3, "Only 3 prompts"),
        ({"proxy": RISE, "gold": RISE}, "gold", 8, "largest lam swept"),
        ({"proxy": RISE, "gold": RISE}, "gold", 8, "never drops"),
        ({"proxy": RISE}, None, 8, "No guard"),
        ({"proxy": 0 * RISE, "gold": RISE}, "gold", 8, "not significant"),
        ({"proxy": RISE, "gold": np.where(np.array(LAMS) == 0.5, -1, 0)}, "gold", 8, "drops at lam = 0.5"),
    ],
)
def test_warnings(curves: Mapping[str, NDArray[np.float64]], guard: str | None, prompts: int, word: str) -> None:
    choice = recommend(results(curves, prompts=prompts), objective="proxy", guard=guard)
    assert any(word in warning for warning in choice.warnings), choice


def test_a_clean_choice_warns_of_nothing() -> None:
    assert choose(results({"proxy": RISE, "gold": COLLAPSE})).warnings == ()


@pytest.mark.parametrize(
    ("table", "names", "words"),
    [
        (results({"proxy": RISE}), ("other", None), "no reward 'other'.*proxy"),
        (results({"proxy": RISE}), ("proxy", "other"), "no reward 'other'.*proxy"),
        (results({"proxy": RISE}), ("proxy", "proxy"), "both 'proxy'"),
        (results({"proxy": RISE[:1]}, lams=(0.0,)), ("proxy", None), "one lam only"),
        (results({"proxy": RISE[1:]}, lams=LAMS[1:]), ("proxy", None), "lam = 0, is not among"),
        (results({"proxy": RISE}, prompts=1), ("proxy", None), "one prompt only"),
    ],
)
def test_a_table_that_cannot_answer_is_refused(table: Results, names: tuple[str, str | None], words: str) -> None:
    with pytest.raises(ResultsError, match=words):
        recommend(table, objective=names[0], guard=names[1])


def test_an_objective_that_never_changes_is_refused() -> None:
    table = results({"proxy": RISE})
    flat = dataclasses.replace(table, scores={"proxy": np.ones_like(table.scores["proxy"])})
    with pytest.raises(ResultsError, match="all scores are equal"):
        recommend(flat, objective="proxy")


@pytest.mark.parametrize(("lams", "words"), [((-1.0, 0.0, 1.0), ["smallest", "opposite"]), ((0.0, 0.5, 1.0), [])])
def test_a_choice_at_the_lower_edge_says_so(lams: tuple[float, ...], words: list[str]) -> None:
    falls = -np.array(lams)
    choice = recommend(results({"proxy": falls}, lams=lams), objective="proxy")
    assert choice.lam == lams[0]
    told = [warning for warning in choice.warnings if "smallest" in warning or "opposite" in warning]
    assert [word for warning in told for word in ("smallest", "opposite") if word in warning] == words
