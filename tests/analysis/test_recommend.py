"""Laws of the choice: known answers, invariances, and a gain and an interval that hold after choosing."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.analysis.synthetic import COLLAPSE, LAMS, RISE, falling, share_above, sweep, table

import deradiff
from deradiff.analysis.criteria import Guard, make_criteria
from deradiff.analysis.decide import chosen_index, combined_gains, decide
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.errors import ResultsError
from deradiff.results import Results, RewardInfo

GOLD = Guard("gold", margin=0.3)
PEAK = -((np.array(LAMS) - 1.5) ** 2)


def choose(run: Results, **asked: Any) -> Recommendation:
    return recommend(run, "proxy", [GOLD], **asked)


def taken(run: Results, *guards: Guard, **asked: Any) -> float:
    """The recommended lam without all that is told beside it."""
    return run.lams[chosen_index(run, make_criteria("proxy", guards, **asked))]


def quiet(run: Results) -> Results:
    """The same run, whose guard is no business of the alarm."""
    return dataclasses.replace(run, rewards={"gold": RewardInfo(direction="none")})


def test_it_is_what_the_package_offers() -> None:
    run = deradiff.Results(
        prompts=[f"prompt {p}" for p in range(40)],
        seeds=[0],
        lams=[0, 0.5, 1],
        scores={
            "pickscore": (np.random.default_rng(0).normal(size=(40, 1, 1)) + np.arange(3.0)).tolist(),
            "hps": np.ones((40, 1, 3)),
        },
    )
    found = deradiff.recommend(
        run, objectives=["pickscore"], guards=[deradiff.Guard("hps", margin=0.2, relative=True)], risk=0.05
    )
    assert found.lam == 1


@pytest.mark.parametrize("rng_seed", range(4))
def test_a_guard_that_collapses_after_the_anchor_is_never_passed(rng_seed: int) -> None:
    choice = choose(quiet(sweep({"proxy": RISE, "gold": COLLAPSE}, rng_seed=rng_seed)))
    assert choice.lam == choice.candidate == 1
    assert choice.beta == pytest.approx(0.1)
    assert choice.verdicts == ("shown to hold",) * 4 + ("fails",) * 3
    assert choice.failing == ((),) * 4 + (("gold",),) * 3
    assert choice.interval == (1, 1)
    assert choice.lams[choice.index] == 1


def test_a_lam_that_is_not_settled_is_neither_taken_nor_said_to_fail() -> None:
    scores = sweep({"proxy": RISE, "gold": 0 * RISE}, prompts=20).scores
    unknown = scores["gold"] + np.random.default_rng(0).normal(size=(20, 1, 1)) * (np.array(LAMS) >= 1.5)
    choice = choose(table({**scores, "gold": unknown}, LAMS))
    assert choice.verdicts == ("shown to hold",) * 4 + ("not settled",) * 3
    assert (choice.lam, choice.lams_by_risk[0.5]) == (1, 4)
    assert choice.interval == (1, 4)


def test_a_guard_that_never_limits_leaves_the_best_of_the_objective() -> None:
    run = sweep({"proxy": PEAK, "gold": RISE}, noise=0.01)
    assert choose(run).lam == recommend(run, "proxy").lam == 1.5


def test_a_falling_objective_leaves_the_reference() -> None:
    choice = choose(sweep({"proxy": -np.array(LAMS), "gold": 0 * RISE}))
    assert (choice.lam, choice.candidate, choice.gain, choice.beta) == (0, 0, None, None)
    assert choice.settled_by is None


def test_a_gain_that_is_not_shown_is_not_taken() -> None:
    """The candidate is named, with an interval that holds 0."""
    run = sweep({"proxy": 0.02 * RISE, "gold": 0 * RISE}, noise=0.1, prompts=12, rng_seed=1)
    choice = recommend(run, "proxy", [Guard("gold", margin=1)], prefer="best")
    assert choice.lam == 0
    assert choice.candidate > 0
    assert choice.gain is not None
    assert choice.gain.low <= choice.gain.mean <= choice.gain.high
    assert choice.gain.low < 0 < choice.gain.high


def test_the_gain_is_settled_by_the_limit_that_is_printed() -> None:
    """Runs whose gain is about as large as its noise."""
    settled = []
    for seed in range(30):
        run = sweep({"proxy": 0.4 * RISE}, noise=0.1, prompts=8, seeds=2, rng_seed=seed)
        found = decide(run, make_criteria("proxy"))
        assert (found.gain is None) == (found.choice.candidate == 0)
        if found.gain is not None:
            assert (found.choice.recommended > 0) == (found.gain.low > 0), seed
            settled.append(found.gain.low > 0)
    assert 5 < sum(settled) < len(settled) - 5


@pytest.mark.parametrize("prompts", [2, 10, 40])
def test_identical_images_leave_the_reference(prompts: int) -> None:
    same = np.random.default_rng(0).normal(size=(2, prompts, 2, 1)) * np.ones(4)
    for guards in ([], ["gold"]):
        choice = recommend(table({"proxy": same[0], "gold": same[1] + 9}, (-1.0, 0.0, 1.0, 2.0)), "proxy", guards)
        assert (choice.lam, choice.gain, choice.raised_alarms) == (0, None, ())


def test_lams_on_both_sides_of_0_are_reached() -> None:
    lams = (-3.0, -2.0, -1.0, 0.0, 1.0)
    run = sweep({"proxy": -np.array(lams), "gold": [0, -1, 0, 0, 0]}, lams=lams, prompts=20)
    choice = choose(run)
    assert choice.lam == -1
    assert choice.verdicts == ("fails", "fails", "shown to hold", "shown to hold", "shown to hold")


def test_no_lam_beyond_a_failing_one_is_taken() -> None:
    dip = np.where(np.array(LAMS) == 0.5, -1.0, 0.0)
    choice = choose(sweep({"proxy": RISE, "gold": dip}, prompts=20))
    assert choice.lam == 0.25
    assert choice.verdicts == ("shown to hold",) * 2 + ("fails",) * 5


@pytest.mark.parametrize("change", [lambda scores: scores + 100, lambda scores: 1000 * scores], ids=["shift", "scale"])
def test_the_units_of_rewards_change_no_lam(change: Callable[[Any], Any]) -> None:
    for seed in range(6):
        run = sweep({"proxy": PEAK, "gold": 0.3 * COLLAPSE}, noise=0.3, rng_seed=seed)
        moved = dataclasses.replace(run, scores={name: change(own) for name, own in run.scores.items()})
        for guards in ([], [Guard("gold")]):
            criteria = make_criteria("proxy", guards)
            one, other = decide(run, criteria), decide(moved, criteria)
            assert (one.choice.candidate, one.choice.recommended) == (other.choice.candidate, other.choice.recommended)
            assert (one.verdicts, one.interval) == (other.verdicts, other.interval)


def test_the_order_of_prompts_and_seeds_changes_nothing() -> None:
    run = sweep({"proxy": RISE, "gold": 0.5 * COLLAPSE}, noise=0.15)
    rng = np.random.default_rng(1)
    prompts, seeds = rng.permutation(12), rng.permutation(4)
    mixed = dataclasses.replace(run, scores={name: own[prompts][:, seeds] for name, own in run.scores.items()})
    one, other = choose(run), choose(mixed)
    assert (one.lam, one.verdicts, one.interval, one.lams_by_risk) == (
        other.lam,
        other.verdicts,
        other.interval,
        other.lams_by_risk,
    )
    assert one.gain is not None
    assert other.gain is not None
    assert (one.gain.mean, one.gain.low) == pytest.approx((other.gain.mean, other.gain.low))
    assert [own.p_value for own in one.alarms] == pytest.approx([own.p_value for own in other.alarms])


@pytest.mark.parametrize("kind", ["normal", "exponential", "binary"])
@pytest.mark.parametrize("prompts", [3, 10, 40])
def test_the_true_loss_at_the_recommended_lam_exceeds_the_margin_as_seldom_as_the_risk(kind: str, prompts: int) -> None:
    """The objective rises all the way; the guard's true loss is 0.2 a unit, and 0.09 may be lost."""
    lams, runs, rng = np.linspace(0, 1, 7), 80, np.random.default_rng([prompts])
    guard, beyond = Guard("gold", margin=0.09), 0
    for _ in range(runs):
        proxy = lams + 0.1 * rng.normal(size=(prompts, 1, 7))
        run = table({"proxy": proxy, "gold": falling(rng, prompts, lams, kind=kind)}, lams)
        beyond += taken(run, guard) > 0.46
    assert beyond / runs <= share_above(0.05, runs)


def test_more_risk_never_gives_a_smaller_lam() -> None:
    different = 0
    for seed in range(16):
        run = sweep({"proxy": RISE, "gold": 0.3 * COLLAPSE}, noise=0.3, prompts=8, rng_seed=seed)
        found = [decide(run, make_criteria("proxy", [GOLD], risk=risk)) for risk in (0.01, 0.05, 0.2, 0.5)]
        lams = [run.lams[own.choice.recommended] for own in found]
        for own in found:
            indices = [choice.recommended for _, choice in sorted(own.choices.items())]
            assert indices == sorted(indices)
        assert lams == sorted(lams)
        different += len(set(lams)) > 1
    assert different > 4
    run = sweep({"proxy": RISE, "gold": 0.3 * COLLAPSE}, noise=0.3, prompts=8, rng_seed=15)
    choice = choose(quiet(run), risk=0.1)
    assert list(choice.lams_by_risk) == [0.05, 0.1, 0.2, 0.5]
    assert choice.lams_by_risk[0.05] == taken(run, GOLD, risk=0.05)
    assert choice.lam == choice.lams_by_risk[0.1]


def test_one_seed_will_do_and_more_show_more() -> None:
    """Noise of images is what keeps one seed from showing the guard."""
    last = []
    for seeds in (1, 8):
        runs = [
            sweep({"proxy": RISE, "gold": 0 * RISE}, noise=0.02, seeds=seeds, rng_seed=rng_seed)
            for rng_seed in range(30)
        ]
        noisy = [
            dataclasses.replace(
                run,
                scores={**run.scores, "gold": run.scores["gold"] + np.random.default_rng(index).normal(size=run.shape)},
            )
            for index, run in enumerate(runs)
        ]
        last.append(np.mean([taken(run, Guard("gold", margin=0.8)) for run in noisy]))
    assert 0 < last[0] < last[1]


def test_the_smallest_of_lams_as_good_is_preferred() -> None:
    """The proxy saturates: what is gained from 1 to 4 is well within its noise, from 0.25 to 0.5 beyond it."""
    saturating = np.array([0, 0.5, 0.8, 1.0, 1.0, 1.01, 1.02])
    smallest, best = [], []
    for seed in range(30):
        run = sweep({"proxy": saturating}, noise=0.1, rng_seed=seed)
        smallest.append(taken(run, prefer="smallest"))
        best.append(taken(run, prefer="best"))
        assert smallest[-1] <= best[-1]
        assert best[-1] == LAMS[int(run.scores["proxy"].mean(axis=(0, 1)).argmax())]
    assert np.median(smallest) == 1
    assert min(smallest) >= 0.5
    assert np.mean(best) > 2


@pytest.mark.parametrize("prefer", ["smallest", "best"])
def test_the_gain_is_not_flattered_by_choosing(prefer: Any) -> None:
    """A flat objective at nine lams: the largest mean is above 0, and what is told is not."""
    lams, gains, largest = np.linspace(0, 2, 9), [], []
    runs = 45
    rng = np.random.default_rng(0)
    for _ in range(runs):
        run = table({"proxy": rng.normal(size=(10, 1, 9)) * (lams > 0)}, lams)
        gain = decide(run, make_criteria("proxy", prefer=prefer)).gain
        gains.append(0.0 if gain is None else gain.mean)
        largest.append(max(run.scores["proxy"].mean(axis=(0, 1))))
    error = np.std(gains) / np.sqrt(runs)
    assert abs(np.mean(gains)) <= 0.05 + 2 * error  # of the deviation between prompts
    assert np.mean(largest) > 0.4


def test_the_limits_of_the_gain_hold_after_choosing() -> None:
    """For flat, saturating and peaked objectives the true gain at the lam that was chosen."""
    lams, rng, runs = np.linspace(0, 2, 7), np.random.default_rng(1), 30
    for curve in (0 * lams, 1 - np.exp(-lams), 0.3 - 0.3 * (lams - 1) ** 2):
        missed = 0
        for _ in range(runs):
            changes = (0.5 * rng.normal(size=(8, 1, 1)) + 0.7 * rng.normal(size=(8, 2, 7))) * (lams > 0)
            found = decide(table({"proxy": curve + changes}, lams), make_criteria("proxy"))
            if found.gain is not None:
                true = curve[found.choice.candidate] - curve[0]
                missed += not found.gain.low <= true <= found.gain.high
        assert missed / runs <= share_above(0.05, runs)


@pytest.mark.parametrize("margin", [None, 0.15])
def test_the_interval_of_lam_holds_the_right_one(margin: float | None) -> None:
    """The best lam of those at which the guard truly holds: by the objective 1, by the guard 0.6."""
    lams, rng, runs = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]), np.random.default_rng(2), 40
    guards, right = ([], 1.0) if margin is None else ([Guard("gold", margin=margin)], 0.6)
    held, wide = 0, []
    for _ in range(runs):
        proxy = -((lams - 1) ** 2) + 0.15 * rng.normal(size=(12, 2, 8)) * (lams > 0)
        gold = np.tile(falling(rng, 12, lams, kind="normal"), (1, 2, 1))
        run = table({"proxy": proxy, "gold": gold}, lams)
        found = decide(run, make_criteria("proxy", guards))
        low, high = found.interval
        assert low <= run.lams[found.choice.recommended] <= high
        held += low <= right <= high
        wide.append(high - low)
    assert held / runs >= 1 - share_above(0.1, runs)
    assert np.mean(wide) < 1


def test_a_raised_alarm_ends_the_choice_at_its_onset() -> None:
    """No guard is named; the alarm finds the collapse, and nothing beyond where it begins is taken."""
    run = sweep({"proxy": RISE, "gold": COLLAPSE})
    choice = recommend(run, "proxy", prefer="best")
    (alarm,) = choice.raised_alarms
    assert choice.lam == alarm.onset == 1
    assert max(choice.lams_by_risk.values()) == 1
    assert choice.verdicts[LAMS.index(1.5) :] == ("fails",) * 3
    assert choice.interval[1] <= 1
    assert recommend(quiet(run), "proxy", prefer="best").lam == 4


def test_the_kl_budget_ends_the_choice_where_the_path_leaves_it() -> None:
    spread = np.array([0.8, 1.2] * 6)[:, None, None]
    run = sweep({"proxy": RISE}, path_kl=np.ones((12, 4, 1)) * 10 * spread * np.square(LAMS))
    choice = recommend(run, "proxy", kl_budget=13)
    assert choice.lam == 1
    assert choice.failing[-1] == ("path KL",)
    assert choice.constraints == ("path KL is at most 13 nats",)
    with pytest.raises(ResultsError, match="didn't record"):
        recommend(sweep({"proxy": RISE}), "proxy", kl_budget=11)


def test_the_pareto_set_is_what_nothing_beats() -> None:
    lams = np.array(LAMS)
    run = sweep({"a": -((lams - 0.5) ** 2), "b": -((lams - 1.5) ** 2)}, noise=0.001)
    choice = recommend(run, ["a", "b"])
    assert choice.pareto == (0.5, 1.0, 1.5)
    assert choice.lam in choice.pareto
    assert recommend(run, "a").pareto == ()
    guarded = sweep(
        {"a": -((lams - 0.5) ** 2), "b": -((lams - 1.5) ** 2), "gold": np.where(lams > 1, -1, 0)}, noise=0.001
    )
    assert recommend(guarded, ["a", "b"], [GOLD]).pareto == (0.5, 1.0)


def test_the_units_of_several_objectives_do_not_matter() -> None:
    lams = np.array(LAMS)
    run = sweep({"a": 1 - (lams - 0.5) ** 2, "b": 1 - (lams - 1.5) ** 2}, noise=0.05)
    scaled = dataclasses.replace(run, scores={"a": 1000 * run.scores["a"], "b": run.scores["b"]})
    criteria = make_criteria(["a", "b"])
    np.testing.assert_allclose(combined_gains(run, criteria).means, combined_gains(scaled, criteria).means)
    one, other = (recommend(own, ["a", "b"]) for own in (run, scaled))
    assert (one.lam, one.pareto, one.interval) == (other.lam, other.pareto, other.interval)


def gapped(rng: np.random.Generator, keep: Sequence[int], drop: Sequence[int]) -> tuple[Results, Results]:
    """A run of which some prompts lack two lams and some a seed, and the same without these prompts or seeds."""
    run = sweep({"proxy": RISE, "gold": 0.3 * COLLAPSE}, prompts=14, noise=0.1, rng_seed=int(rng.integers(1000)))
    scores = {name: own.copy() for name, own in run.scores.items()}
    for own in scores.values():
        own[drop] = np.nan  # prompts without any image
        own[:, 3] = np.nan  # a seed without any
    whole = {name: own[keep][:, :3] for name, own in run.scores.items()}
    return table(scores, LAMS), table(whole, LAMS)


def test_images_that_are_missing_are_as_if_they_had_not_been_planned() -> None:
    gaps, whole = gapped(np.random.default_rng(0), range(12), [12, 13])
    one, other = choose(gaps), choose(whole)
    assert (one.lam, one.candidate, one.verdicts, one.interval) == (
        other.lam,
        other.candidate,
        other.verdicts,
        other.interval,
    )
    assert one.lams_by_risk == other.lams_by_risk
    assert one.gain is not None
    assert other.gain is not None
    assert (one.gain.mean, one.gain.low) == pytest.approx((other.gain.mean, other.gain.low))
    for name in ("proxy", "gold"):
        found, wanted = one.curves[name].change[-1], other.curves[name].change[-1]
        assert (found.mean, found.low, found.high) == pytest.approx((wanted.mean, wanted.low, wanted.high), rel=1e-4)
    assert [(a.reward, a.onset, a.raised) for a in one.alarms] == [(a.reward, a.onset, a.raised) for a in other.alarms]


def test_a_lam_that_few_prompts_have_is_judged_by_these() -> None:
    """Five prompts of twelve have images at lam = 0.5: it is judged as a table of these five would be."""
    run = sweep({"proxy": RISE, "gold": 0 * RISE}, noise=0.1)
    scores = {name: own.copy() for name, own in run.scores.items()}
    for own in scores.values():
        own[5:, :, 2] = np.nan
    gaps = choose(table(scores, LAMS))
    five = choose(table({name: own[:5] for name, own in run.scores.items()}, LAMS))
    assert gaps.verdicts[2] == five.verdicts[2]
    assert (gaps.curves["gold"].pairs[2], gaps.curves["gold"].pairs[3]) == (20, 48)


@pytest.mark.parametrize("prompts", [6, 12])
def test_where_no_prompt_has_all_lams_there_is_an_answer_too(prompts: int) -> None:
    run = sweep({"proxy": RISE, "gold": 0 * RISE}, prompts=prompts)
    scores = {name: own.copy() for name, own in run.scores.items()}
    for prompt in range(prompts):
        for own in scores.values():
            own[prompt, :, 1 + prompt % (len(LAMS) - 1)] = np.nan
    choice = choose(table(scores, LAMS))
    assert choice.lam > 0
    assert choice.alarms == ()


def test_a_score_of_every_lam_is_needed_of_no_reward_that_is_not_asked_about() -> None:
    run = sweep({"proxy": RISE, "gold": 0 * RISE})
    part = dataclasses.replace(run, unscored={"hps": 5})
    words = "5 of 336 images have no score of hps; score the run: run.score('hps')"
    answer = choose(part)
    assert answer.skipped_rewards == (words,)
    assert answer.lam == choose(run).lam
    for objectives, guards in (("hps", []), ("proxy", ["hps"]), (["proxy", "hps"], [])):
        with pytest.raises(ResultsError, match=re.escape(words)):
            recommend(part, objectives, guards)


@pytest.mark.parametrize(
    ("curve", "lams", "wanted"),
    [
        (np.array([0, 1, 2.0]), (0.0, 0.5, 1.0), (1.5, 2.0)),
        (np.array([2, 1, 0.0]), (-1.0, 0.0, 1.0), ()),
        (np.array([0, 2, 1.0]), (0.0, 0.5, 1.0), (0.25, 0.75)),
        (np.array([0, 2, 2.0, 1]), (0.0, 0.5, 0.6, 1.0), None),
        (np.array([0, 2, 1.0]), (0.0, 0.05, 0.1), ()),
    ],
)
def test_lams_are_suggested_beyond_an_edge_or_between_wide_steps(
    curve: Any, lams: tuple[float, ...], wanted: tuple[float, ...] | None
) -> None:
    found = recommend(sweep({"r": curve}, lams=lams, noise=0.01), "r").suggested_lams
    assert found == wanted if wanted is not None else 0.55 not in found


@pytest.mark.parametrize(
    ("objectives", "guards", "words"),
    [
        ("other", [], "no reward 'other'.*proxy"),
        ("proxy", ["other"], "no reward 'other'.*proxy"),
        ("proxy", ["proxy"], "'proxy' is named twice"),
        ("proxy", ["gold", "gold"], "'gold' is named twice"),
    ],
)
def test_a_question_that_the_table_cannot_answer_is_refused(objectives: str, guards: list[Any], words: str) -> None:
    with pytest.raises(ResultsError, match=words):
        recommend(sweep({"proxy": RISE, "gold": RISE}), objectives, guards)


def test_a_run_is_taken_as_its_results() -> None:
    results = sweep({"proxy": RISE, "gold": RISE})
    run: Any = SimpleNamespace(results=lambda: results)
    assert recommend(run, "proxy") == recommend(results, "proxy")
    with pytest.raises(ResultsError, match=r"expected a deradiff\.Run or deradiff\.Results, got str"):
        recommend("runs/a", "proxy")  # pyright: ignore[reportArgumentType]
