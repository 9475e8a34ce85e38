"""A guard is shown to hold, or it isn't: how far out, how often wrongly, and what a lack of prompts does."""

import dataclasses
from math import ceil, log

import numpy as np
import pytest
from tests.analysis.synthetic import COLLAPSE, LAMS, RISE, Floats, falling, share_above, sweep, table

from deradiff.analysis.criteria import Criteria, Guard, make_criteria
from deradiff.analysis.guards import (
    BUDGET,
    failing,
    least_prompts,
    lower_slack,
    make_constraints,
    shown_to_hold,
)
from deradiff.errors import ResultsError
from deradiff.results import Results, RewardInfo

FALL = -np.array(LAMS)  # by 1 a unit of lam


def shown(run: Results, *guards: Guard, kl_budget: float | None = None, risk: float = 0.05) -> list[float]:
    made = make_constraints(run, Criteria(objectives=("proxy",), guards=guards, kl_budget=kl_budget))
    return [lam for lam, own in zip(run.lams, shown_to_hold(made, run.zero, len(run.lams), risk), strict=True) if own]


def fails(run: Results, *guards: Guard, risk: float = 0.05) -> list[tuple[str, ...]]:
    made = make_constraints(run, make_criteria("proxy", guards))
    return failing(made, run.zero, len(run.lams), risk)


@pytest.mark.parametrize(
    ("guard", "level", "last"),
    [
        (Guard("gold", margin=0.6), 0, 0.5),
        (Guard("gold", margin=1.2), 0, 1.0),
        (Guard("gold", margin=0.1, relative=True), 12, 1.0),
        (Guard("gold", margin=0.1, relative=True), -12, 1.0),
        (Guard("gold", margin=1.7, both=True), 0, 1.5),
        (Guard("gold", margin=9.0), 0, 4.0),
        (Guard("gold", margin=0.01), 0, 0.0),
    ],
)
def test_a_margin_is_used_up_where_it_says(guard: Guard, level: float, last: float) -> None:
    run = sweep({"gold": FALL + level}, noise=0.01, level=0.1)
    assert shown(run, guard)[-1] == last
    assert [bool(names) for names in fails(run, guard)] == [lam > last for lam in LAMS]


def test_a_guard_that_rises_never_limits() -> None:
    for seed in range(20):
        rises = shown(sweep({"gold": RISE}, prompts=10, rng_seed=seed), Guard("gold", margin=0.05))
        assert rises == list(LAMS)
    assert shown(sweep({"gold": -FALL}, noise=0.01), Guard("gold", margin=0.6, both=True))[-1] == 0.5


def test_every_guard_must_hold() -> None:
    run = sweep({"gold": FALL, "silver": 2 * FALL}, noise=0.01)
    guards = Guard("gold", margin=1.2), Guard("silver", margin=1.2)
    assert shown(run, *guards)[-1] == 0.5
    found = fails(run, *guards)
    assert found[LAMS.index(1.0)] == ("silver",)
    assert set(found[-1]) == {"gold", "silver"}


def test_nothing_beyond_a_lam_that_fails_or_is_not_shown_is_taken() -> None:
    dip = np.where(np.array(LAMS) == 0.5, -1.0, 0.0)
    run = sweep({"gold": dip}, prompts=20)
    assert shown(run, Guard("gold", margin=0.3)) == [0, 0.25]
    assert [bool(names) for names in fails(run, Guard("gold", margin=0.3))] == [lam >= 0.5 for lam in LAMS]
    scores = sweep({"gold": 0 * dip}, prompts=20).scores["gold"].copy()
    scores[:, :, 3] += np.random.default_rng(0).normal(size=(20, 1))  # nothing is known of lam = 1
    unsettled = table({"gold": scores}, LAMS)
    assert shown(unsettled, Guard("gold", margin=0.3)) == [0, 0.25, 0.5]
    assert not any(fails(unsettled, Guard("gold", margin=0.3)))


def test_lams_below_the_reference_are_reached_from_it_too() -> None:
    lams = (-3.0, -2.0, -1.0, 0.0, 1.0)
    run = sweep({"gold": [0, -1, 0, 0, 0]}, lams=lams, prompts=20)
    assert shown(run, Guard("gold", margin=0.3)) == [-1, 0, 1]
    assert [bool(names) for names in fails(run, Guard("gold", margin=0.3))] == [True, True, False, False, False]


@pytest.mark.parametrize("kind", ["normal", "exponential", "binary"])
@pytest.mark.parametrize("prompts", [3, 10, 40])
def test_a_loss_beyond_the_margin_is_shown_to_hold_as_seldom_as_the_risk(kind: str, prompts: int) -> None:
    """Lams from 0 to 1 lose 0.2 a unit; more than the 0.09 that may be lost from lam = 0.5 on."""
    lams, runs = np.linspace(0, 1, 7), 160
    guard = Guard("gold", margin=0.09 / 0.9 if kind == "binary" else 0.09, relative=kind == "binary")
    rng, beyond = np.random.default_rng(prompts), 0
    for _ in range(runs):
        beyond += shown(table({"gold": falling(rng, prompts, lams, kind=kind)}, lams), guard)[-1] > 0.46
    assert beyond / runs <= share_above(0.05, runs)


@pytest.mark.parametrize("kind", ["normal", "binary"])
def test_more_prompts_show_more_and_risk_no_more(kind: str) -> None:
    lams, runs, rng = np.linspace(0, 1, 5), 60, np.random.default_rng(0)
    guard, last = Guard("gold", margin=0.14), {}
    for prompts in (3, 12, 80, 400):
        samples = [table({"gold": falling(rng, prompts, lams, kind=kind)}, lams) for _ in range(runs)]
        last[prompts] = np.array([shown(sample, guard)[-1] for sample in samples])
    assert [np.mean(last[prompts] > 0.55) <= share_above(0.05, runs) for prompts in last] == [True] * 4
    assert last[3].mean() <= last[12].mean() < last[80].mean() <= last[400].mean()
    assert last[400].mean() > 0.4  # of the right 0.5


def test_where_lams_lie_on_both_sides_of_0_each_has_half_the_risk() -> None:
    """The lams above 0 alone are shown at 5% what both sides together show at 10%."""
    rng, margin, together, alone = np.random.default_rng(0), Guard("gold", margin=0.1), [], []
    for _ in range(60):
        above = falling(rng, 12, [0, 0.2, 0.4], kind="normal")
        both = np.concatenate([above[:, :, :0:-1], above], axis=2)
        run = table({"gold": both}, (-0.4, -0.2, 0.0, 0.2, 0.4))
        together.append([lam for lam in shown(run, margin, risk=0.1) if lam >= 0])
        alone.append(shown(table({"gold": above}, (0.0, 0.2, 0.4)), margin, risk=0.05))
        assert shown(run, margin, risk=0.1)[-1] == -shown(run, margin, risk=0.1)[0]
    assert together == alone
    assert {tuple(own) for own in alone} > {(0.0, 0.2)}


def test_what_is_said_to_fail_is_named_wrongly_as_seldom_as_the_risk() -> None:
    """A guard that loses its margin exactly at each of eleven lams, whose noise has nothing in common."""
    runs, lams, rng = 100, np.arange(12) / 4, np.random.default_rng(0)
    wrong = []
    for _ in range(runs):
        gold = 5 - 0.2 * (lams > 0) + rng.normal(size=(60, 1, 12)) * (lams > 0)
        wrong.append(any(fails(table({"gold": gold}, lams), Guard("gold", margin=0.2))))
    assert np.mean(wrong) <= share_above(0.05, runs)
    assert any(wrong)


@pytest.mark.parametrize("risk", [0.05, 0.2, 0.5])
def test_the_slack_is_above_0_where_it_is_shown(risk: float) -> None:
    for seed in range(12):
        run = sweep({"gold": 0.2 * FALL, "silver": 0.1 * FALL}, noise=0.2, rng_seed=seed)
        made = make_constraints(run, make_criteria("proxy", [Guard("gold", margin=0.3, both=True), Guard("silver")]))
        slack = np.min(list(lower_slack(made, 0, len(LAMS), risk).values()), axis=0)
        holds = np.logical_and.accumulate(slack >= 0)
        np.testing.assert_array_equal(holds, shown_to_hold(made, 0, len(LAMS), risk))


def test_the_kl_budget_is_kept_by_the_same_rule() -> None:
    """The mean KL is 10 lam squared; a budget is shown to be kept, not just kept by the mean."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 1.5, size=(12, 4, 1))
    run = sweep({"gold": 0 * FALL}, path_kl=10 * spread * np.square(LAMS))
    mean = float(10 * spread.mean())
    assert shown(run, kl_budget=1.5 * mean)[-1] == 1
    assert shown(run, kl_budget=1.001 * mean)[-1] == 0.5
    made = make_constraints(run, make_criteria("proxy", kl_budget=0.5 * mean))
    assert [own.name for own in made] == [BUDGET]
    assert failing(made, 0, len(LAMS), 0.05)[LAMS.index(1.5)] == (BUDGET,)
    alike = sweep({"gold": 0 * FALL}, path_kl=np.square(LAMS), prompts=2)  # two prompts that move alike are no proof
    assert shown(alike, kl_budget=1.01)[-1] < 1
    with pytest.raises(ResultsError, match="didn't record"):
        shown(sweep({"gold": FALL}), kl_budget=11)


def test_a_budget_is_broken_as_seldom_as_the_risk() -> None:
    runs, rng, lams = 150, np.random.default_rng(0), np.array([0, 0.5, 1.0, 1.05, 2])
    for prompts in (3, 20):
        beyond = 0
        for _ in range(runs):
            kl = rng.exponential(size=(prompts, 1, 1)) * np.square(lams)
            run = table({"gold": np.zeros((prompts, 1, 5))}, lams, path_kl=kl)
            beyond += shown(run, kl_budget=1.0)[-1] > 1
        assert beyond / runs <= share_above(0.05, runs)


def counted(prompts: int, rate: float = 1.0) -> Results:
    """All images pass at every lam: as clean as data can be."""
    passing = (np.arange(prompts) < rate * prompts).astype(float)[:, None, None] * np.ones(3)
    return table({"gold": passing}, (0.0, 0.5, 1.0))


@pytest.mark.parametrize("margin", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_a_counted_guard_takes_as_many_prompts_as_it_says_however_clean(margin: float, risk: float) -> None:
    least = ceil(log(risk) / log(1 - margin))
    assert least_prompts(margin, risk) == least
    for guard in (Guard("gold", margin=margin), Guard("gold", margin=margin, relative=True)):
        (made,) = make_constraints(counted(least), make_criteria("proxy", [guard]))
        assert made.least_prompts(risk) == least
        assert shown(counted(least), guard, risk=risk) == [0, 0.5, 1]
        assert shown(counted(least - 1), guard, risk=risk) == [0]


def test_a_share_of_all_or_next_to_nothing_has_a_number_too() -> None:
    assert least_prompts(1.0, 0.05) == least_prompts(10.0, 0.05) == 0
    assert least_prompts(1e-9, 0.05) == 2_995_732_273
    assert 1e15 < least_prompts(1e-320, 0.05) < 1e16


def test_the_known_numbers_of_prompts() -> None:
    assert [least_prompts(margin, 0.05) for margin in (0.05, 0.1, 0.2)] == [59, 29, 14]


def test_a_measured_guard_without_a_floor_takes_no_number_of_prompts() -> None:
    (made,) = make_constraints(sweep({"gold": FALL}), make_criteria("proxy", [Guard("gold", margin=0.5)]))
    assert made.least_prompts(0.05) is None
    run = sweep({"gold": FALL + 10})
    best = float(run.scores["gold"][:, :, 0].mean(axis=1).max())
    (made,) = make_constraints(run, make_criteria("proxy", [Guard("gold", margin=0.5, floor=best - 5)]))
    assert made.worst == pytest.approx(0.5 - 5)
    assert made.least_prompts(0.05) == 29  # a tenth of prompts that lose 5
    (made,) = make_constraints(run, make_criteria("proxy", [Guard("gold", margin=0.5, floor=best)]))
    assert made.worst == pytest.approx(0.5)
    assert made.least_prompts(0.05) is None  # nothing can be lost


@pytest.mark.parametrize("level", [1, -1])
def test_the_worst_that_may_happen_is_to_the_best_prompt_or_the_worst_of_what_must_not_rise(level: int) -> None:
    """Prompts whose images pass one, two or all four times; the margin is a quarter of each one's own reference."""
    passing = (np.arange(4) < np.repeat([1, 2, 4], 7)[:, None]).astype(float)[:, :, None] * np.ones(2)
    run = table({"gold": passing}, (0.0, 1.0))
    if level < 0:
        run = table({"gold": -passing}, (0.0, 1.0))
    guard = Guard("gold", margin=0.25, relative=True, both=True)
    falls, rises = make_constraints(run, make_criteria("proxy", [guard]))
    # falls by 1 where .25 is allowed, or rises by .75 where .0625 is; mirrored where passing counts as -1
    wanted = (-1 + 0.25, -0.75 + 0.0625)
    assert (falls.worst, rises.worst) == pytest.approx(wanted if level > 0 else wanted[::-1])
    assert falls.margin == rises.margin == pytest.approx(0.25 * passing.mean())
    assert (falls.slack.lowest[1], rises.slack.lowest[1]) == pytest.approx((falls.worst, rises.worst))


def test_a_declared_floor_shows_more_of_clean_data_and_is_that_of_the_card_too() -> None:
    """Five prompts that hardly change: what another could lose is all that is open."""
    run = sweep({"gold": 0.02 * FALL + 10}, prompts=5, seeds=2, noise=0.2, level=0.1)
    bare, near = Guard("gold", margin=0.6), Guard("gold", margin=0.6, floor=9.2)
    carded = dataclasses.replace(run, rewards={"gold": RewardInfo(floor=9.2)})
    assert shown(carded, bare) == shown(run, near)
    assert len(shown(run, near)) > len(shown(run, bare))


def test_identical_images_are_shown_to_hold_only_as_far_as_prompts_go() -> None:
    """The same images at every lam: that nothing is lost isn't certain with few prompts."""
    same: Floats = np.random.default_rng(0).normal(size=(40, 2, 1)) * np.ones(3) + 10
    guard = Guard("gold", margin=0.1, relative=True)
    assert shown(table({"gold": same[:5]}, (0.0, 0.5, 1.0)), guard) == [0]
    assert shown(table({"gold": same}, (0.0, 0.5, 1.0)), guard) == [0, 0.5, 1]


def test_what_each_guard_may_lose_is_reported() -> None:
    run = sweep({"gold": COLLAPSE + 5, "silver": COLLAPSE + 5})
    guards = Guard("gold", margin=0.01, relative=True), Guard("silver", margin=0.25, both=True)
    texts = [own.text for own in make_constraints(run, make_criteria("proxy", guards))]
    assert texts == ["gold loses at most 1%", "silver loses at most 0.25", "silver gains at most 0.25"]
