"""A recommendation in words: figures as they are in it, nothing that contradicts itself."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from tests.analysis.synthetic import COLLAPSE, LAMS, RISE, Floats, sweep, table

from deradiff.analysis import messages
from deradiff.analysis.criteria import Guard
from deradiff.analysis.overoptimization import LEVEL
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.results import Results, RewardInfo

FLAT = np.zeros(len(LAMS))
GOLD = Guard("gold", margin=0.3)
STEADY = {"edges": RewardInfo(direction="steady", margin=0.25, relative=True)}
NONE = {"gold": RewardInfo(direction="none")}


def choose(run: Results, *guards: Guard, **asked: Any) -> Recommendation:
    return recommend(run, "proxy", list(guards), **asked)


def test_a_settled_lam_is_reported_with_its_beta_what_holds_and_the_risk() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": COLLAPSE}, rewards=NONE), GOLD, risk=0.1)
    assert messages.headline(answer) == "lam: 1 (beta 0.1): gold loses at most 0.3, shown at 10% risk"
    assert messages.headline(answer, "guidance 7").startswith("lam at guidance 7: 1 (beta 0.1): ")
    assert messages.lead(answer) == "Gold loses at most 0.3, shown at 10% risk."
    assert messages.headline(choose(sweep({"proxy": RISE, "gold": FLAT}), prefer="best")).endswith(
        "proxy is shown to rise there"
    )


def test_reasons_give_the_figures_of_the_candidate() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": COLLAPSE}, rewards=NONE), GOLD)
    index = answer.lams.index(answer.candidate)
    told = " ".join(messages.reasons(answer))
    assert f"Gain in proxy there, corrected for choosing: {answer.gain}." in told
    assert "the smallest within one standard error of the best among the lams shown to hold" in told
    assert f"There gold changes by {answer.curves['gold'].change[index]}." in told
    assert f"in {messages.share_text(answer.curves['proxy'].wins[index])} of pairs" in told
    assert "anchor" not in told  # it is the anchor
    best = choose(sweep({"proxy": RISE, "gold": FLAT}), prefer="best")
    assert "It is the best among all lams." in " ".join(messages.reasons(best))
    assert "above the anchor's in" in " ".join(messages.reasons(best))


def test_several_objectives_are_reported_each_with_the_pareto_set() -> None:
    lams = np.array(LAMS)
    run = sweep({"a": -((lams - 0.5) ** 2), "b": -((lams - 1.5) ** 2)}, noise=0.001)
    told = " ".join(messages.reasons(recommend(run, ["a", "b"])))
    assert "a by +" in told
    assert "and b by +" in told
    assert "better than these in every objective: 0.5, 1, 1.5." in told


CASES: list[tuple[Mapping[str, Floats], dict[str, Any], str]] = [
    ({"proxy": RISE, "gold": -4 * np.array(LAMS)}, {}, "every other lam fails \\(gold\\)"),
    ({"proxy": -RISE, "gold": FLAT}, {}, "no lam shown to hold raises proxy"),
    ({"proxy": RISE, "gold": FLAT}, {"prompts": 2, "noise": 0.5}, "these 2 prompts don't settle any other lam"),
    (
        {"proxy": 0.05 * RISE, "gold": FLAT},
        {"noise": 0.1, "rng_seed": 4},
        "these 12 prompts don't settle the gain in proxy at lam = ",
    ),
]


@pytest.mark.parametrize(("curves", "made", "words"), CASES)
def test_a_lam_of_0_says_why_none_above_it_is_taken(
    curves: Mapping[str, Floats], made: dict[str, Any], words: str
) -> None:
    answer = choose(sweep(curves, rewards=NONE, **made), GOLD, prefer="best")
    assert answer.lam == 0
    assert re.search(words, messages.headline(answer))


def test_each_lam_says_why_it_is_not_taken() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": COLLAPSE}, rewards=NONE), GOLD)
    told = [messages.verdict_reason(answer, index) for index in range(len(LAMS))]
    assert told == [""] * 4 + ["fails: gold"] * 3
    alarmed = choose(sweep({"proxy": RISE, "gold": COLLAPSE}), prefer="best")
    assert messages.verdict_reason(alarmed, len(LAMS) - 1) == "beyond the onset of a hacking alarm"
    few = choose(sweep({"proxy": RISE, "gold": FLAT}, noise=0.5, prompts=2), GOLD)
    assert messages.verdict_reason(few, 1) == "not settled"


def test_other_risks_stand_side_by_side_with_the_interval_of_lam() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": 0.3 * COLLAPSE}, noise=0.3, rewards=NONE), GOLD)
    safe, middle, best = answer.lams_by_risk.values()
    low, high = answer.interval
    assert messages.by_risk(answer) == (
        f"safe {safe:g} (5% risk), {middle:g} (20% risk), best estimate {best:g} (50% risk). "
        f"For all prompts like these, the best of these lams lies between {low:g} and {high:g} (95% confidence)."
    )
    assert safe < best
    alone = dataclasses.replace(answer, interval=(low, low))
    assert f"the best of these lams is {low:g} (95% confidence)." in messages.by_risk(alone)


def test_what_would_settle_it_is_reported_where_something_is_open() -> None:
    """Six prompts leave open what the guard loses; many that are clean leave nothing."""
    curves = {"proxy": RISE, "gold": FLAT}
    few = choose(sweep(curves, prompts=6, noise=0.4, rewards=NONE), Guard("gold", margin=0.6), prefer="best")
    assert few.settled_by is not None
    lam, prompts = few.settled_by
    assert few.lam < lam <= few.lams_by_risk[0.5]
    assert messages.to_settle(few) == (
        f"About {prompts - 6} more prompts like these ({prompts} in all) would show lam = {lam:g} (80% power)."
    )
    assert messages.to_settle(choose(sweep(curves, prompts=30, noise=0.02, rewards=NONE), GOLD)) is None
    lucky = dataclasses.replace(few, settled_by=(lam, 5))
    assert "these were unlucky" in str(messages.to_settle(lucky))
    unknown = dataclasses.replace(few, settled_by=None)
    assert "These 6 prompts can't say how many" in str(messages.to_settle(unknown))


def test_an_alarm_is_reported_with_its_figures_and_what_it_assumes() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": COLLAPSE}))
    (alarm,) = answer.raised_alarms
    told = messages.alarm_sentence(alarm, 12)
    assert told.startswith(f"from lam = {alarm.before:g} to {alarm.after:g} proxy rises by {alarm.rise} while gold ")
    assert f"changes by {alarm.change}" in told
    assert f"up to lam = 1 the fall is within {alarm.margin:.3g}." in told
    assert told.endswith("12 prompts can miss a group of up to 22%.")
    assert "miss" not in messages.alarm_sentence(alarm, 29)
    assert "p < 0.001" in messages.alarm_sentence(dataclasses.replace(alarm, p_value=0.0004), 29)
    assert "p = 0.012" in messages.alarm_sentence(dataclasses.replace(alarm, p_value=0.0123), 29)


def test_a_drift_is_reported_as_one() -> None:
    run = sweep({"proxy": RISE, "edges": 4 + np.array(LAMS)}, noise=0.02, level=0.1, rewards=STEADY)
    answer = choose(run)
    (alarm,) = answer.raised_alarms
    told = messages.alarm_sentence(alarm, 40)
    assert told.startswith(f"from lam = 1.5 edges is more than {alarm.margin:.3g} off the reference")
    assert f"(it changes by {alarm.change}; p < 0.001) while proxy rises by {alarm.rise}." in told


def test_a_silent_alarm_shows_how_near_it_was() -> None:
    """Each drops by 0.2 from lam = 1 on; what differs is the noise, so how near it is."""
    step = np.where(np.array(LAMS) > 1, -0.2, 0)
    run = sweep({"proxy": RISE, "near": step, "far": step}, prompts=10, seeds=1, noise=0.25, rng_seed=2)
    far = run.scores["far"] + 3 * np.random.default_rng(1).normal(size=run.shape)
    answer = choose(dataclasses.replace(run, scores={**run.scores, "far": far}))
    nearest, other = answer.alarms
    assert (nearest.reward, nearest.raised, other.raised) == ("near", False, False)
    assert LEVEL < nearest.p_value < other.p_value
    silence = messages.no_alarm_message(answer)
    assert silence is not None
    assert f"the closest is near from lam = {nearest.before:g} to {nearest.after:g} ({nearest.change}" in silence
    assert f"10 prompts leave room for a change of {nearest.change.figures[1]} there" in silence


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (sweep({"proxy": RISE, "gold": COLLAPSE}, prompts=9), "needs 10 prompts or more; there are 9"),
        (sweep({"proxy": RISE}), "Nothing else is scored"),
        (sweep({"proxy": RISE, "gold": COLLAPSE}, rewards=NONE), "needs a lam above 0"),
        (sweep({"proxy": FLAT[:2], "gold": FLAT[:2]}, lams=(-1.0, 0.0)), "needs a lam above 0"),
    ],
)
def test_where_no_alarm_could_be_raised_that_is_reported_and_nothing_of_silence(run: Results, words: str) -> None:
    answer = choose(run)
    assert (answer.alarms, messages.no_alarm_message(answer)) == ((), None)
    assert any(words in warning for warning in messages.warnings(answer))


def test_where_one_alarm_is_raised_the_silent_ones_stay_silent() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": COLLAPSE, "calm": FLAT}))
    assert [alarm.raised for alarm in answer.alarms] == [True, False]
    assert messages.no_alarm_message(answer) is None


@pytest.mark.parametrize("slope", [0.2, -0.2])
def test_of_what_should_stay_silence_leaves_room_on_the_side_it_moved_to(slope: float) -> None:
    run = sweep({"proxy": RISE, "edges": 4 + slope * np.array(LAMS)}, noise=0.02, level=0.1, rewards=STEADY)
    answer = choose(run)
    low, high = answer.alarms[0].change.figures[1:]
    silence = str(messages.no_alarm_message(answer))
    assert f"where {answer.alarms[0].margin:.3g} off the reference is allowed" in silence
    assert f"a change of {high if slope > 0 else low} there" in silence


def test_silence_leaves_room_for_a_fall_whatever_the_mean_did() -> None:
    curves = {"proxy": np.array([0.0, 1]), "gold": np.zeros(2)}
    answers = [choose(sweep(curves, lams=(0.0, 1.0), prompts=10, rng_seed=seed)) for seed in range(8)]
    silent = {str(messages.no_alarm_message(own)): own.alarms[0].change for own in answers if not own.raised_alarms}
    open_ended = {said: change for said, change in silent.items() if change.low < 0}
    assert {change.mean > 0 for change in open_ended.values()} == {False, True}
    assert all(f"a change of {change.figures[1]} there" in said for said, change in open_ended.items())


def test_of_what_only_rises_silence_leaves_no_room() -> None:
    silence = str(messages.no_alarm_message(choose(sweep({"proxy": RISE, "gold": RISE}, noise=0.001))))
    assert "the closest is gold" in silence
    assert "room" not in silence


COARSE = (
    r"grid is coarse around lam = 1: lam = 0.5 differs from it by more than noise and lam = 1.5 isn't shown to hold "
    r"\(fails: gold\); sweep 0.75 and 1.25 too"
)
WARNINGS: list[tuple[Mapping[str, Floats], dict[str, Any], tuple[Guard, ...], str]] = [
    ({"proxy": RISE, "gold": COLLAPSE}, {"prompts": 3}, (GOLD,), "Only 3 prompts"),
    (
        {"proxy": RISE + np.array(LAMS), "gold": RISE},
        {},
        (GOLD,),
        "the largest lam swept: a .* may lie above it\\.$",
    ),
    (
        {"proxy": RISE + np.array(LAMS), "gold": RISE},
        {},
        (GOLD,),
        "^gold holds at every lam swept: this run does not show where it would fail",
    ),
    ({"proxy": RISE + np.array(LAMS), "gold": RISE}, {}, (GOLD,), "lam = 4 extrapolates beyond the anchor"),
    ({"proxy": RISE}, {}, (), "No guard: nothing shows what proxy may cost"),
    ({"proxy": RISE}, {}, (), "nothing here would show that proxy is hacked"),
    ({"proxy": RISE, "gold": COLLAPSE}, {}, (GOLD,), COARSE),
]


@pytest.mark.parametrize(("curves", "made", "guards", "words"), WARNINGS)
def test_warnings(curves: Mapping[str, Floats], made: dict[str, Any], guards: tuple[Guard, ...], words: str) -> None:
    told = messages.warnings(choose(sweep(curves, **made), *guards))
    assert any(re.search(words, warning) for warning in told), told


def test_an_objective_that_is_the_same_at_every_lam_is_reported() -> None:
    run = sweep({"proxy": RISE, "gold": FLAT})
    answer = choose(dataclasses.replace(run, scores={**run.scores, "proxy": np.ones(run.shape)}), GOLD)
    assert answer.lam == 0
    assert "proxy is the same at every lam: these scores can't choose a lam." in messages.warnings(answer)


def test_a_counted_guard_with_too_few_prompts_is_reported_how_many_it_takes() -> None:
    run = table(
        {"proxy": np.random.default_rng(0).normal(size=(10, 1, 3)) + 2 * np.arange(3.0), "gold": np.ones((10, 1, 3))},
        (0.0, 0.5, 1.0),
    )
    answer = choose(run, Guard("gold", margin=0.1, relative=True))
    assert answer.least_prompts == {"gold": 29}
    assert any(
        "with 10 prompts, however clean: it takes 29 or more at 5% risk" in own for own in messages.warnings(answer)
    )
    looser = choose(run, Guard("gold", margin=0.3, relative=True))
    assert looser.lam > 0
    assert not any("however clean" in own for own in messages.warnings(looser))


def test_what_was_shown_is_not_said_to_be_impossible() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": -np.array(LAMS)}), Guard("gold", margin=0.6))
    assert answer.lam > 0
    assert not any("can't be shown" in warning for warning in messages.warnings(answer))


def test_a_reward_that_is_left_out_is_reported() -> None:
    run = dataclasses.replace(sweep({"proxy": RISE, "gold": FLAT}), unscored={"hps": 5})
    told = messages.warnings(choose(run))
    assert any(warning.startswith("Left out: 5 of 336 images have no score of hps") for warning in told)


@pytest.mark.parametrize(("lams", "expected"), [((-1.0, 0.0, 1.0), True), ((0.0, 0.5, 1.0), False)])
def test_a_negative_lam_is_warned_of(lams: tuple[float, ...], expected: bool) -> None:
    answer = recommend(sweep({"proxy": -np.array(lams)}, lams=lams), "proxy")
    assert answer.lam == lams[0]
    assert ("opposite of aligning" in " ".join(messages.warnings(answer))) is expected


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_a_sweep_of_no_lam_above_0_is_sent_towards_the_anchor(slope: float) -> None:
    lams = (-0.5, -0.25, 0.0)
    answer = choose(sweep({"proxy": slope * np.array(lams), "gold": np.zeros(3)}, lams=lams), GOLD)
    told = " ".join(messages.warnings(answer))
    assert "No lam above 0 was swept, which is where alignment is; sweep 0.5 and 1 too." in told
    assert "largest lam" not in told
    assert "coarse" not in told


def test_a_guard_that_holds_above_0_alone_does_not_hold_at_every_lam() -> None:
    lams = (-1.0, 0.0, 1.0)
    answer = choose(sweep({"proxy": np.array(lams), "gold": np.minimum(lams, 0)}, lams=lams), GOLD)
    assert [verdict == "shown to hold" for verdict in answer.verdicts] == [False, True, True]
    assert "at every lam" not in " ".join(messages.warnings(answer))


def test_several_guards_hold_and_several_objectives_are_hacked() -> None:
    run = sweep({"a": RISE, "b": RISE, "gold": FLAT, "grey": FLAT}, prompts=30, noise=0.01)
    both = " ".join(messages.warnings(recommend(run, "a", [GOLD, Guard("grey", margin=0.3)])))
    assert "gold and grey hold at every lam swept: this run does not show where they would fail" in both
    told = " ".join(messages.warnings(recommend(sweep({"a": RISE, "b": RISE}), ["a", "b"])))
    assert "that a and b are hacked" in told


def test_the_best_estimate_is_no_nearer_than_the_lam_whose_gain_is_reported() -> None:
    """Whatever the text names as the lam to settle is also the lam that is likelier than not."""
    named = 0
    for seed in range(12):
        run = sweep({"proxy": 0.05 * RISE, "gold": FLAT}, noise=0.15, rng_seed=seed, rewards=NONE)
        answer = choose(run, GOLD)
        best = answer.lams_by_risk[0.5]
        assert best >= answer.candidate >= answer.lam
        if answer.settled_by is not None:
            assert answer.lam < answer.settled_by[0] <= best
        named += answer.candidate > answer.lam == 0
    assert named > 2  # of these the text told a gain, and a best estimate of 0 beside it


def test_at_the_risk_of_the_best_estimate_nothing_is_called_shown() -> None:
    told = messages.headline(choose(sweep({"proxy": RISE, "gold": FLAT}), risk=0.5))
    assert told.endswith("proxy is likelier than not to rise there")


def test_wins_by_little_are_no_gain() -> None:
    """Nearly all images win by a hair, and one prompt loses a lot."""
    rng = np.random.default_rng(0)
    change = 0.001 + 0.0001 * rng.normal(size=(40, 1, 1))
    change[0] = -0.03
    scores = rng.normal(size=(40, 1, 1)) + change * np.arange(2.0)
    answer = choose(table({"proxy": scores, "gold": np.ones((40, 1, 2))}, (0.0, 1.0)), prefer="best")
    assert answer.candidate == 1
    told = " ".join(messages.reasons(answer))
    assert "reference's in 98%" in told
    assert "A win counts however small it is: the mean change is not shown to be above 0." in told
    assert "A win counts" not in " ".join(messages.reasons(choose(sweep({"proxy": RISE, "gold": FLAT}))))


@pytest.mark.parametrize("guard", [Guard("gold", margin=10.0, relative=True), Guard("gold", margin=1.0, relative=True)])
def test_a_guard_that_cannot_fail_is_reported(guard: Guard) -> None:
    run = sweep({"proxy": RISE, "gold": 9 + np.array(LAMS)}, level=0.1, prompts=30)
    told = messages.warnings(choose(run, guard))
    assert "The guard gold can't fail: its margin is all that gold can lose, or more. Give a smaller one." in told
    assert not any("at every lam" in warning for warning in told)
    assert not any(
        "can't fail" in own for own in messages.warnings(choose(run, dataclasses.replace(guard, margin=0.5)))
    )
    below_zero = dataclasses.replace(run, scores={**run.scores, "gold": run.scores["gold"] - 9.3})
    assert not any("can't fail" in own for own in messages.warnings(choose(below_zero, guard)))


@pytest.mark.parametrize("margin", [1e-11, 1e-30])
def test_a_margin_of_next_to_nothing_names_no_number_of_prompts(margin: float) -> None:
    run = table({"proxy": np.arange(3.0) + np.zeros((10, 1, 3)), "gold": np.ones((10, 1, 3))}, (0.0, 0.5, 1.0))
    told = messages.warnings(choose(run, Guard("gold", margin=margin)))
    assert any("by any practical number of prompts" in warning for warning in told)
    many = messages.warnings(choose(run, Guard("gold", margin=1e-3)))
    assert any("it takes 2,995 or more" in warning for warning in many), many


def test_a_clean_choice_warns_of_nothing() -> None:
    fine = tuple(round(0.1 * step, 1) for step in range(16))
    curves = {"proxy": 1 - np.exp(-np.array(fine)), "gold": -np.clip(np.array(fine) - 0.9, 0, None)}
    answer = choose(sweep(curves, lams=fine, prompts=30, noise=0.02), Guard("gold", margin=0.15))
    assert answer.lam == 1
    assert messages.warnings(answer) == []
    assert messages.to_settle(answer) is None


def test_no_lam_at_the_other_end_of_the_grid_counts_as_a_neighbour() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": -4 * np.array(LAMS)}, rewards=NONE), GOLD)
    assert answer.lam == 0
    told = " ".join(messages.warnings(answer))
    assert "grid is coarse around lam = 0: lam = 0.25 isn't shown to hold (fails: gold); sweep 0.125 too" in told


def test_figures_of_a_surrogate_are_called_so() -> None:
    answer = choose(sweep({"proxy": RISE, "gold": COLLAPSE}, rewards=NONE), GOLD)
    index = answer.lams.index(answer.candidate)
    assert index in answer.named_lams
    assert "surrogate" not in " ".join(messages.reasons(answer))
    curves = {
        name: dataclasses.replace(curve, pairs=tuple(n * (at != index) for at, n in enumerate(curve.pairs)))
        for name, curve in answer.curves.items()
    }
    filled_in = dataclasses.replace(answer, curves=curves)
    assert [filled_in.is_sampled(at) for at in range(len(LAMS))] == [at != index for at in range(len(LAMS))]
    assert "No image was sampled at this lam: a surrogate gives its figures." in " ".join(messages.reasons(filled_in))
