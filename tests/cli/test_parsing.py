"""Short texts of the command line."""

import pytest

from deradiff.analysis.criteria import Criteria, Guard
from deradiff.cli.parsing import (
    lams_for_betas,
    parse_criteria,
    parse_delimiter,
    parse_guards,
    parse_numbers,
    parse_seeds,
    parse_shard,
    parse_share,
    private_urls,
)
from deradiff.errors import ConfigError, ResultsError


def test_numbers_and_betas() -> None:
    assert parse_numbers("0:2:5") == [0, 0.5, 1, 1.5, 2]
    assert parse_numbers("1, 0, 0.3") == [0, 0.3, 1]
    assert parse_numbers("0:1:3,4,1") == [0, 0.5, 1, 4]
    assert lams_for_betas("1000,4000,500", 2000) == [0, 0.5, 2, 4]


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:x", "0,,1", "0:1:0", "0:1:1000000000"])
def test_unreadable_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"guidance.*start:stop:count"):
        parse_numbers(text, "guidance")


@pytest.mark.parametrize(("text", "beta"), [("500", None), ("x", 2.0), ("0", 2.0), ("-1", 2.0)])
def test_unusable_betas_are_refused(text: str, beta: float | None) -> None:
    with pytest.raises(ConfigError, match="beta"):
        lams_for_betas(text, beta)


def test_seeds_and_delimiters() -> None:
    assert parse_seeds("4") == (0, 1, 2, 3)
    assert parse_seeds("0,7, 42") == (0, 7, 42)
    assert parse_seeds("7,") == (7,)
    for text in ("", ",", "0", "-1", "1,,2", "a", "1.5", "1,-2", "1000001"):
        with pytest.raises(ConfigError, match="expected a count like 4, or seeds like 0,7,42, or 7, for one"):
            parse_seeds(text)
    assert [parse_delimiter(text) for text in (None, ";", "tab", "\\t")] == [None, ";", "\t", "\t"]
    for text in ("", "ab", '"', "\n"):
        with pytest.raises(ConfigError, match="expected one character"):
            parse_delimiter(text)


def test_shares() -> None:
    assert parse_share("1%") == parse_share("0.01") == parse_share(" 1 %".strip()) == 0.01
    for text in ("", "%", "0", "0%", "100%", "1", "-1%", "nan", "one"):
        with pytest.raises(ConfigError, match="1%"):
            parse_share(text)


def test_shards_count_from_one_as_test_runners_do() -> None:
    assert [parse_shard(f"{k}/3") for k in (1, 2, 3)] == [(0, 3), (1, 3), (2, 3)]
    for text in ("", "0/3", "4/3", "1", "1/2/3", "a/b", "1/0"):
        with pytest.raises(ConfigError, match="1/4"):
            parse_shard(text)


def test_guards_are_read_as_typed() -> None:
    text = "hps,clip:-0.5%, diversity:-10% ,edges:±5%,contrast:+-0.1,noise:+/-.2,mine:redness,mine:b:-2,blur:−1%"
    assert parse_guards(text) == (
        Guard("hps"),
        Guard("clip", margin=0.005, relative=True, both=False),
        Guard("diversity", margin=0.1, relative=True, both=False),
        Guard("edges", margin=0.05, relative=True, both=True),
        Guard("contrast", margin=0.1, both=True),
        Guard("noise", margin=0.2, both=True),
        Guard("mine:redness"),
        Guard("mine:b", margin=2.0, both=False),
        Guard("blur", margin=0.01, relative=True, both=False),  # as copied from a text
    )
    assert parse_guards("") == parse_guards(" , ") == ()
    assert parse_guards("http://host:8000/score:-1%") == (
        Guard("http://host:8000/score", margin=0.01, relative=True, both=False),
    )


@pytest.mark.parametrize(
    ("text", "margin", "relative"),
    [("hps:-1e-3", 1e-3, False), ("hps:-2E2", 200, False), ("hps:-.5e+1%", 0.05, True), ("hps:±1.5e-2", 0.015, False)],
)
def test_margins_may_have_exponents(text: str, margin: float, relative: bool) -> None:
    (guard,) = parse_guards(text)
    assert (guard.reward, guard.margin, guard.relative) == ("hps", pytest.approx(margin), relative)
    assert guard.both == ("±" in text)


@pytest.mark.parametrize(
    ("text", "url", "margin"),
    [
        ("http://host:8000:-1%", "http://host:8000", 0.01),
        ("http://host/score:-0.1", "http://host/score", 0.1),
        ("https://host:8000/a:b:±1e-2", "https://host:8000/a:b", 0.01),
    ],
)
def test_the_url_of_a_server_may_have_a_margin(text: str, url: str, margin: float) -> None:
    (guard,) = parse_guards(text)
    assert (guard.reward, guard.margin) == (url, margin)


@pytest.mark.parametrize("text", ["http://host/score", "http://host:8000", "http://host:8000/score"])
def test_a_server_may_be_a_guard_by_its_url_alone(text: str) -> None:
    assert parse_guards(text) == (Guard(text),)


def test_a_question_is_read_as_typed() -> None:
    assert parse_criteria("a, b", "c,d:-1", 2.0, 0.1, "best") == Criteria(
        objectives=("a", "b"),
        guards=(Guard("c"), Guard("d", margin=1.0, both=False)),
        kl_budget=2.0,
        risk=0.1,
        prefer="best",
    )
    assert parse_criteria("a") == Criteria(objectives=("a",))


@pytest.mark.parametrize(
    ("objective", "guard", "budget", "words"),
    [
        ("", None, None, "no objective"),
        (" , ", None, None, "no objective"),
        ("a", "a:-1%", None, "'a' is named twice"),
        ("a,a", None, None, "'a' is named twice"),
        ("a", "b,b:-1", None, "'b' is named twice"),
        (
            "a",
            "b:-x%",
            None,
            "can't read the guard 'b:-x%': its margin '-x%' is not a number; expected NAME, NAME:-0.1",
        ),
        ("a", "faithfulness:banana", None, "its margin 'banana' is not a number"),
        ("a", "faithfulness:nan", None, "its margin 'nan' is not a number"),
        ("a", "mine:inf", None, "its margin 'inf' is not a number"),
        ("a", "b:-inf", None, "its margin '-inf' is not a number"),
        ("a", "b:-5%%", None, "can't read the guard"),
        ("a", "b:--5", None, "can't read the guard"),
        ("a", "b:", None, "can't read the guard 'b:'"),
        ("a", "b: ,c", None, "can't read the guard 'b:'"),
        ("a", "b:-", None, "can't read the guard"),
        ("a", "b:-1e", None, "can't read the guard"),
        ("a", "b:-1e-3", float("inf"), "KL budget"),
        ("a", "b:0.1", None, "asks for a rise; say how much may be lost: b:-0.1"),
        ("a", "b:+5%", None, "b:-5%"),
        ("a", "b:0", None, "margin of 0.*such as b:-1%, or name it alone"),
        ("a", "b:-0%", None, "margin of 0.*such as b:-1%, or name it alone"),
        ("a", "b:±0", None, "margin of 0"),
        ("a", None, -1.0, "KL budget"),
        ("a", None, float("nan"), "KL budget"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused(
    objective: str, guard: str | None, budget: float | None, words: str
) -> None:
    with pytest.raises(ResultsError, match=words):
        parse_criteria(objective, guard, budget)


@pytest.mark.parametrize("risk", [0.0, 0.6, -1.0])
def test_a_risk_is_a_probability_up_to_a_half(risk: float) -> None:
    with pytest.raises(ResultsError, match=r"above 0 and at most 0.5"):
        parse_criteria("a", risk=risk)
    with pytest.raises(ResultsError, match="prefer"):
        parse_criteria("a", prefer="largest")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "name", "margin"),
    [
        ("http://user:-pass@host:80/score?key=1:-2%", "http://host:80/score", 0.02),
        ("https://user:pass@host/score#top", "https://host/score", None),
        ("https://host/score?q=a:b", "https://host/score", None),
        ("http://host:8000/-1", "http://host:8000/-1", None),
        ("http://host/score:\u22121%", "http://host/score", 0.01),
        ("http://user:-pass@host", "http://host", None),
    ],
)
def test_a_guard_by_a_url_has_its_public_name(text: str, name: str, margin: float | None) -> None:
    (guard,) = parse_guards(text)
    assert (guard.reward, guard.margin) == (name, margin)


def test_a_url_whose_margin_lacks_its_sign_is_told() -> None:
    with pytest.raises(ResultsError, match=r"asks for a rise; say how much may be lost: http://host/score:-5%"):
        parse_guards("http://host/score:5%")


def test_a_question_has_public_names_and_knows_what_to_ask() -> None:
    criteria = parse_criteria("https://u:p@h/a?k=1,b", "c,https://h/d?k=2:-1%")
    assert criteria.objectives == ("https://h/a", "b")
    assert list(criteria.guard_names) == ["c", "https://h/d"]
    assert private_urls("https://u:p@h/a?k=1,b", "c,https://h/d?k=2:-1%") == ["https://u:p@h/a?k=1", "https://h/d?k=2"]
