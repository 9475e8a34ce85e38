"""Laws of the choice: known answers, invariances, and intervals that cover what they claim."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.recommend.subject import COLLAPSE, LAMS, RISE, results

from deradiff.errors import ResultsError
from deradiff.recommend import Interval, Recommendation, ask, paired_curve, recommend
from deradiff.recommend.flips import band
from deradiff.recommend.hold import Holding
from deradiff.results import Results


def failing(table: Results) -> tuple[tuple[str, ...], ...]:
    return Holding(table, ask("other", "r")).failing()


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
    assert choice.curves["gold"].change[choice.place].low < 0 < choice.curves["gold"].change[choice.place].high


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
    assert [bool(words) for words in choose(table).failing] == [False, False, False, False, True, True, True]
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
    assert before.curves["proxy"].change[before.place].high == pytest.approx(
        after.curves["proxy"].change[after.place].high
    )


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
    truth = np.array([0.0, 0.3, 0.0])
    tables = [results({"r": truth}, lams=(0.0, 1.0, 2.0), seeds=2, rng_seed=i) for i in range(runs)]
    curves = [paired_curve(table, "r") for table in tables]
    covered = np.mean([curve.change[1].low <= 0.3 <= curve.change[1].high for curve in curves])
    banded = np.mean([all(b.low <= t <= b.high for b, t in zip(c.band, truth, strict=True)) for c in curves])
    dropped = np.mean([bool(failing(table)[2]) for table in tables])
    tolerance = 4 * np.sqrt(0.05 * 0.95 / runs)
    assert covered == pytest.approx(0.95, abs=tolerance)
    assert banded == pytest.approx(0.95, abs=tolerance)
    assert dropped == pytest.approx(0.05, abs=tolerance)


@pytest.mark.parametrize(("prompts", "correlated"), [(8, False), (8, True), (40, False)])
def test_a_band_holds_the_whole_of_a_long_curve(prompts: int, correlated: bool) -> None:
    runs, rng = 1000, np.random.default_rng(0)
    missed = 0
    for _ in range(runs):
        noise = rng.normal(size=(prompts, 21))
        means = noise.cumsum(axis=1) if correlated else noise
        missed += bool((np.abs(means.mean(axis=0)) > band(means)).any())
    assert missed / runs <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / runs)
    assert missed / runs > 0.01


def test_a_band_is_as_wide_wherever_the_curve_lies_and_finite_for_two_prompts() -> None:
    means = np.random.default_rng(0).normal(size=(8, 5))
    np.testing.assert_allclose(band(means + 100), band(means), rtol=1e-6)
    assert np.isfinite(band(means[:2])).all()


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
    table = results({"r": COLLAPSE})
    change = paired_curve(table, "r").change[0]
    assert (change.mean, change.low, change.high) == (0, 0, 0)
    assert not failing(table)[0]


def test_a_constant_change_without_noise_is_a_drop() -> None:
    table = results({"r": COLLAPSE}, noise=0.0)
    assert failing(table)[-1]


@pytest.mark.parametrize(
    ("curves", "guard", "prompts", "word"),
    [
        ({"proxy": RISE, "gold": COLLAPSE}, "gold", 3, "Only 3 prompts"),
        ({"proxy": RISE, "gold": RISE}, "gold", 8, "largest lam swept"),
        ({"proxy": RISE, "gold": RISE}, "gold", 8, "never fails"),
        ({"proxy": RISE}, None, 8, "No guard"),
        ({"proxy": 0 * RISE, "gold": RISE}, "gold", 8, "not significant"),
        (
            {"proxy": RISE, "gold": np.where(np.array(LAMS) == 0.5, -1, 0)},
            "gold",
            8,
            "At lam = 1 all guards hold again, but one surely fails",
        ),
    ],
)
def test_warnings(curves: Mapping[str, NDArray[np.float64]], guard: str | None, prompts: int, word: str) -> None:
    choice = recommend(results(curves, prompts=prompts), objective="proxy", guard=guard)
    assert any(word in warning for warning in choice.warnings), choice


def test_a_clean_choice_warns_of_nothing() -> None:
    fine = tuple(round(0.1 * step, 1) for step in range(21))
    curves = {"proxy": 1 - np.exp(-np.array(fine)), "gold": -np.clip(np.array(fine) - 1, 0, None)}
    assert choose(results(curves, lams=fine)).warnings == ()


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


def test_a_reward_scored_in_part_is_left_out_and_blocks_no_other() -> None:
    table = results({"proxy": RISE, "gold": COLLAPSE})
    alone = dataclasses.replace(table, scores={"proxy": table.scores["proxy"]})
    part = dataclasses.replace(alone, unscored={"gold": 5})
    words = "5 of 224 images have no score of gold; score the run again: deradiff score RUN --rewards gold"
    said = recommend(part, objective="proxy")
    assert f"Left out: {words}" in said.warnings
    assert said.reason == recommend(alone, objective="proxy").reason
    for objective, guard in (("gold", None), ("proxy", "gold"), ("proxy,gold", None)):
        with pytest.raises(ResultsError, match=words):
            recommend(part, objective=objective, guard=guard)


def test_a_score_that_is_no_number_is_refused() -> None:
    table = results({"proxy": RISE, "gold": COLLAPSE})
    table.scores["gold"][0, 0, :2] = np.nan, np.inf
    with pytest.raises(ResultsError, match="gold: 2 of 224 scores are nan or infinite"):
        dataclasses.replace(table)


def test_an_objective_that_never_changes_is_refused() -> None:
    table = results({"proxy": RISE})
    flat = dataclasses.replace(table, scores={"proxy": np.ones_like(table.scores["proxy"])})
    with pytest.raises(ResultsError, match="proxy: all 224 scores are 1, so no lam is better"):
        recommend(flat, objective="proxy")


@pytest.mark.parametrize(("lams", "words"), [((-1.0, 0.0, 1.0), ["smallest", "opposite"]), ((0.0, 0.5, 1.0), [])])
def test_a_choice_at_the_lower_edge_says_so(lams: tuple[float, ...], words: list[str]) -> None:
    falls = -np.array(lams)
    choice = recommend(results({"proxy": falls}, lams=lams), objective="proxy")
    assert choice.lam == lams[0]
    told = [warning for warning in choice.warnings if "smallest" in warning or "opposite" in warning]
    assert [word for warning in told for word in ("smallest", "opposite") if word in warning] == words
