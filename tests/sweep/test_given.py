"""Short texts of the command line."""

import pytest

from deradiff.errors import PlanError
from deradiff.sweep.given import lams_for_betas, parse_numbers, parse_shard, parse_share


def test_numbers_and_betas() -> None:
    assert parse_numbers("0:2:5") == [0, 0.5, 1, 1.5, 2]
    assert parse_numbers("1, 0, 0.3") == [0, 0.3, 1]
    assert parse_numbers("0:1:3,4,1") == [0, 0.5, 1, 4]
    assert lams_for_betas("1000,4000,500", 2000) == [0, 0.5, 2, 4]


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:x", "0,,1", "0:1:0", "0:1:1000000000"])
def test_unreadable_numbers_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"guidance.*start:stop:count"):
        parse_numbers(text, "guidance")


@pytest.mark.parametrize(("text", "beta"), [("500", None), ("x", 2.0), ("0", 2.0), ("-1", 2.0)])
def test_unusable_betas_are_refused(text: str, beta: float | None) -> None:
    with pytest.raises(PlanError, match="beta"):
        lams_for_betas(text, beta)


def test_shares() -> None:
    assert parse_share("1%") == parse_share("0.01") == parse_share(" 1 %".strip()) == 0.01
    for text in ("", "%", "0", "0%", "100%", "1", "-1%", "nan", "one"):
        with pytest.raises(PlanError, match="1%"):
            parse_share(text)


def test_shards_count_from_one_as_test_runners_do() -> None:
    assert [parse_shard(f"{k}/3") for k in (1, 2, 3)] == [(0, 3), (1, 3), (2, 3)]
    for text in ("", "0/3", "4/3", "1", "1/2/3", "a/b", "1/0"):
        with pytest.raises(PlanError, match="1/4"):
            parse_shard(text)
