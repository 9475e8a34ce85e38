"""The hacking alarm: as many false alarms as claimed, and none missed that matters."""

import dataclasses

import numpy as np
import pytest
from tests.analysis.synthetic import COLLAPSE, LAMS, RISE, Floats, noise, share_above, sweep, table

from deradiff.analysis.criteria import Guard, make_criteria
from deradiff.analysis.overoptimization import (
    LEAST_PROMPTS,
    LEVEL,
    Alarm,
    adjusted_p_values,
    alarms,
    missable_share,
)
from deradiff.analysis.statistics import t_values
from deradiff.results import Results, RewardInfo

FLAT = np.zeros(len(LAMS))
STEADY = {"edges": RewardInfo(direction="steady", margin=0.25, relative=True)}
CLAIMED = 0.07  # measured false alarms of skewed changes; LEVEL is what is tested at


def listed(run: Results, objectives: str | list[str] = "proxy", guards: tuple[Guard | str, ...] = ()) -> list[Alarm]:
    return alarms(run, make_criteria(objectives, guards))


def raised(run: Results, objectives: str | list[str] = "proxy", guards: tuple[Guard | str, ...] = ()) -> list[Alarm]:
    return [alarm for alarm in listed(run, objectives, guards) if alarm.raised]


def most(share: float, runs: int) -> float:
    """The largest share of false alarms in so many runs of which a share is claimed, at 3 standard errors."""
    return share + 3 * float(np.sqrt(share * (1 - share) / runs))


@pytest.mark.parametrize("kind", ["normal", "exponential"])
@pytest.mark.parametrize("prompts", [10, 24])
def test_false_alarms_are_as_rare_as_claimed(kind: str, prompts: int) -> None:
    """One held-out reward changes by a factor a prompt, 0 on average, times lam; the objective rises for sure."""
    runs, rng, lams = 80, np.random.default_rng([prompts, 1]), np.array([0, 0.5, 1.0])
    false = 0
    for _ in range(runs):
        gold = noise(kind, rng, (prompts, 1, 1)) * lams + 0.3 * rng.normal(size=(prompts, 1, 3))
        proxy = 3 * lams + 0.3 * rng.normal(size=(prompts, 1, 3))
        false += bool(raised(table({"proxy": proxy, "gold": gold}, lams), guards=(Guard("gold", margin=1e-9),)))
    assert false / runs <= most(CLAIMED, runs)


def test_p_values_are_no_smaller_than_by_drawing_prompts_again() -> None:
    """Where few prompts fall much, flipping signs alone is too sure: it doesn't know that more could be in the tail."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(25):
        column = 1.4 - rng.exponential(size=24)
        drawn = column[rng.integers(24, size=(4000, 24))]
        t = (drawn.mean(axis=1) - column.mean()) / drawn.std(axis=1, ddof=1)
        again = np.mean(t >= column.mean() / column.std(ddof=1))  # bootstrap-t
        found = adjusted_p_values(column[:, None])[0]
        assert found >= 0.6 * again - 0.01
        ratios.append((found + 0.01) / (again + 0.01))
    assert np.mean(ratios) > 0.9


def test_p_values_of_symmetric_changes_are_right_over_all_lams_and_metrics() -> None:
    """Two metrics at four lams change by prompt with a true mean of 0: every pair of lams is asked."""
    runs, rng = 200, np.random.default_rng(0)
    false = 0
    for _ in range(runs):
        a, b, c = np.moveaxis(rng.normal(size=(10, 2, 3)).cumsum(axis=2), 2, 0)
        false += adjusted_p_values(np.hstack([a, b, c, b - a, c - b, c - a])).min() <= LEVEL
    assert false / runs <= most(LEVEL, runs)


@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_a_null_run_raises_as_few_whole_alarms(kind: str) -> None:
    """The objective rises for sure; the held-out rewards wander around 0 with seeds and lams."""
    runs, rng, lams = 40, np.random.default_rng(0), (0.0, 0.5, 1.0)
    false = 0
    for _ in range(runs):
        held = {
            name: 5 + noise(kind, rng, (10, 1, 3)).cumsum(axis=2) + 0.3 * rng.normal(size=(10, 2, 3)) for name in "ab"
        }
        proxy = np.array(lams) + 0.05 * rng.normal(size=(10, 2, 3))
        false += bool(raised(table({"proxy": proxy, **held}, lams), guards=("a",)))
    assert false / runs <= share_above(CLAIMED, runs)


@pytest.mark.parametrize(("prompts", "least"), [(10, 0.7), (16, 0.9)])
def test_a_true_fall_of_a_named_guard_is_found(prompts: int, least: float) -> None:
    """By 1 standard deviation of the prompts' changes, where one metric was named."""
    runs, rng = 40, np.random.default_rng(prompts)
    found = 0
    for _ in range(runs):
        fall = np.array([0, -0.5, -1.0]) + 0.7 * noise("normal", rng, (prompts, 1, 3)) * (np.arange(3) > 0)
        run = table(
            {"proxy": np.array([0, 5.0, 9]) + 0.1 * rng.normal(size=(prompts, 1, 3)), "gold": fall}, (0.0, 1.0, 2.0)
        )
        found += bool(raised(run, guards=(Guard("gold", margin=0.1),)))
    assert found / runs >= least


def test_a_named_guard_keeps_half_of_the_level_however_many_metrics_are_beside_it() -> None:
    """As p-values the guard's are twice those of the guard alone, and what wanders beside it can't drown it."""
    p: dict[str, float] = {}
    for seed in range(3):
        run = sweep({"proxy": 3 * RISE, "gold": 0.1 * COLLAPSE}, noise=0.2, prompts=10, rng_seed=seed)
        rng = np.random.default_rng(seed)
        beside = {name: rng.standard_t(3, size=run.shape).cumsum(axis=2) for name in "abcdef"}
        wide = dataclasses.replace(run, scores={**run.scores, **beside})
        p = {
            case: next(alarm.p_value for alarm in listed(own, guards=guards) if alarm.reward == "gold")
            for case, own, guards in (("alone", run, ()), ("named", wide, ("gold",)), ("among", wide, ()))
        }
        assert p["named"] == pytest.approx(min(1, 2 * p["alone"]))
        assert p["among"] >= p["alone"]
    assert p["among"] > p["named"]


@pytest.mark.parametrize("prompts", [10, 12])
def test_a_collapse_is_found_with_where_it_begins(prompts: int) -> None:
    for seed in range(4):
        run = sweep({"proxy": RISE, "gold": COLLAPSE}, noise=0.1, prompts=prompts, rng_seed=seed)
        (found,) = raised(run)
        assert found.onset == 1
        assert found.change.high < 0 < found.rise.low
        assert (found.objective, found.reward, found.drifts) == ("proxy", "gold", False)
        assert found.before <= 1 < found.after


def test_a_fall_after_a_rise_is_found_though_it_ends_above_the_reference() -> None:
    hump = np.array([0, 0.5, 1, 2, 1.6, 1.2, 0.4])
    (alarm,) = raised(sweep({"proxy": RISE, "gold": hump}, level=0.1))
    assert alarm.before == 1
    assert alarm.onset == 1


@pytest.mark.parametrize("objective", [FLAT, -RISE])
def test_without_a_rise_of_the_objective_nothing_is_hacked(objective: Floats) -> None:
    found = [raised(sweep({"proxy": objective, "gold": COLLAPSE}, rng_seed=seed)) for seed in range(10)]
    assert np.mean([bool(one) for one in found]) <= share_above(CLAIMED, 10)


def test_a_fall_that_is_smaller_than_what_matters_raises_none() -> None:
    """A sure fall by 0.3, which a guard's margin or a card allows, and a small effect of 0.1 doesn't."""
    run = sweep({"proxy": RISE, "gold": np.where(np.array(LAMS) > 1, -0.3, 0)}, noise=0.02, level=0.5)
    assert raised(run)
    assert raised(run, guards=(Guard("gold", margin=0.2),))
    (allowed,) = listed(run, guards=(Guard("gold", margin=0.5),))
    assert not allowed.raised
    assert allowed.p_value <= LEVEL
    carded = dataclasses.replace(run, rewards={"gold": RewardInfo(margin=0.5)})
    assert not raised(carded)
    assert (listed(carded)[0].margin, allowed.margin) == (0.5, 0.5)


def test_what_is_said_not_to_matter_raises_no_alarm() -> None:
    run = sweep({"proxy": RISE, "gold": COLLAPSE})
    assert raised(run)
    assert not listed(dataclasses.replace(run, rewards={"gold": RewardInfo(direction="none")}))


@pytest.mark.parametrize(("slope", "alarm"), [(0.1, False), (1.0, True), (-1.0, True)])
@pytest.mark.parametrize("level", [4, -4])
def test_what_should_stay_may_move_a_little_to_either_side(slope: float, alarm: bool, level: float) -> None:
    curve = level + 0.9 * slope * np.array(LAMS)
    found = raised(sweep({"proxy": RISE, "edges": curve}, noise=0.02, level=0.1, rewards=STEADY))
    assert bool(found) == alarm
    if found:
        assert (found[0].drifts, found[0].before, found[0].after) == (True, 0, 1.5)  # 25% of 4 is passed at 1.1
        assert found[0].onset == 1
        assert found[0].margin == pytest.approx(1, rel=0.05)


def test_the_surest_comes_first() -> None:
    wander = np.random.default_rng(0).normal(size=(20, 1, len(LAMS))) * (np.array(LAMS) > 0)
    run = sweep({"proxy": RISE, "gold": 0.2 * COLLAPSE, "silver": COLLAPSE, "calm": FLAT}, prompts=20)
    unsure = dataclasses.replace(run, scores={**run.scores, "gold": run.scores["gold"] + wander})
    found = listed(unsure, guards=(Guard("calm", margin=1),))
    assert next(alarm for alarm in found if alarm.raised).reward == "silver"
    assert found == sorted(found, key=lambda own: (not own.raised, own.p_value))
    assert not found[-1].raised


def test_what_happens_below_the_reference_is_no_hacking() -> None:
    lams = (-4.0, -2.0, -1.0, 0.0, 1.0)
    run = sweep({"proxy": np.array(lams), "gold": -np.clip(np.array(lams), None, 0)}, lams=lams)
    assert not raised(run)


def test_several_objectives_are_distinguished() -> None:
    run = sweep({"proxy": RISE, "other": -RISE, "gold": COLLAPSE})
    assert {alarm.objective for alarm in raised(run, ["proxy", "other"])} == {"proxy"}


@pytest.mark.parametrize("prompts", [2, LEAST_PROMPTS - 1])
def test_too_few_prompts_raise_none(prompts: int) -> None:
    assert LEAST_PROMPTS == 10
    assert listed(sweep({"proxy": RISE, "gold": COLLAPSE}, prompts=prompts)) == []


def test_nothing_held_out_and_a_single_lam_raise_none() -> None:
    assert listed(sweep({"proxy": RISE})) == []
    assert listed(sweep({"proxy": RISE[:2], "gold": COLLAPSE[:2]}, lams=(-1.0, 0.0))) == []


def test_prompts_without_all_lams_are_left_out_and_lams_that_few_prompts_have() -> None:
    run = sweep({"proxy": RISE, "gold": COLLAPSE}, prompts=16)
    gaps = {name: own.copy() for name, own in run.scores.items()}
    for own in gaps.values():
        own[12:, :, 2] = np.nan  # four prompts lack a lam
        own[3:, :, 5] = np.nan  # a lam has three prompts
    kept = run.select(range(12), [0, 1, 2, 3, 4, 6])
    assert listed(table(gaps, LAMS)) == listed(kept)
    for own in gaps.values():
        own[9:, :, 2] = np.nan
    assert listed(table(gaps, LAMS)) == []  # nine prompts are too few
    for prompt in range(16):
        for own in gaps.values():
            own[prompt, :, prompt % len(LAMS)] = np.nan
    assert listed(table(gaps, LAMS)) == []  # no prompt has all lams


def test_counts_of_which_all_agree_are_no_surer_than_prompts_can_show() -> None:
    """All ten prompts fall by one level of five: another kind of prompt may rise."""
    steps = np.repeat(np.arange(3, 5.0), 5)[:, None, None] - np.array([0, 0, 1.0])
    run = table({"proxy": np.arange(10.0)[:, None, None] ** 0.5 + [0, 1, 2.2], "gold": steps}, (0.0, 1.0, 2.0))
    found = next(iter(listed(run)))
    assert found.p_value > 1e-3
    assert found.change.low < -1 < found.change.high


@pytest.mark.parametrize(("prompts", "alarm"), [(10, False), (24, False), (40, True)])
def test_measures_that_fall_exactly_alike_are_no_surer_either(prompts: int, alarm: bool) -> None:
    """A tenth of all prompts could offset what these do, and ten prompts miss such a tenth one time in three."""
    levels = np.random.default_rng(0).normal(size=(prompts, 1, 1))
    run = table(
        {"proxy": np.round(levels, 1) + np.array([0, 1, 2.0]), "gold": np.round(8 * levels) + np.array([0, -1, -2])},
        (0.0, 0.5, 1.0),
    )
    assert bool(raised(run, guards=(Guard("gold", margin=0.1),))) == alarm


def test_a_group_of_prompts_that_a_sample_misses_is_as_large_as_is_said() -> None:
    for prompts in (10, 29):
        assert (1 - missable_share(prompts)) ** prompts == pytest.approx(0.05)
    assert missable_share(29) == pytest.approx(0.1, abs=0.005)


def test_p_values_follow_t_and_know_no_order_of_columns_or_prompts() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(10, 30)) + np.linspace(-1, 1, 30)
    p, order = adjusted_p_values(columns), rng.permutation(30)
    assert (np.diff(p[t_values(columns).argsort()]) <= 1e-12).all()
    np.testing.assert_allclose(adjusted_p_values(columns[:, order]), p[order], rtol=0.3, atol=0.01)
    np.testing.assert_allclose(adjusted_p_values(columns[rng.permutation(10)]), p)
    np.testing.assert_allclose(adjusted_p_values(1000 * columns), p)


def test_stepping_down_hides_no_column_behind_sure_ones() -> None:
    """A small rise is found as often beside twenty sure ones as alone."""
    alone, beside = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        small = rng.normal(size=(12, 1)) + 0.9
        sure = rng.normal(size=(12, 20)) + 6
        alone += adjusted_p_values(small)[0] <= 0.05
        beside += adjusted_p_values(np.hstack([small, sure]))[0] <= 0.05
    assert alone > 30
    assert abs(alone - beside) <= 4


def test_p_values_are_adjusted_for_all_that_is_asked() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(12, 40))
    one = np.array([adjusted_p_values(columns[:, [k]])[0] for k in range(40)])
    assert (adjusted_p_values(columns) >= one - 1e-12).all()
    assert one.min() < 0.1 < adjusted_p_values(columns).min()
