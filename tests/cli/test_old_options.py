"""Command lines of version 0.1, which work for one release."""

import pytest

from deradiff.cli.old_options import in_todays_words


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ("sweep --mode adaptive --quality 1%", "sweep --policy adaptive --target-error 1%", 2),
        ("sweep --mode=weights --out r", "sweep --policy weights --out r", 1),
        ("sweep --resume --half", "sweep --dtype float16", 2),
        ("study run --out s.db", "export --format optuna run --out s.db", 1),
        ("export study --out s.csv", "export study --out s.csv", 0),
        ("sweep --policy exact --ensemble toggle", "sweep --policy exact --ensemble toggle", 0),
    ],
)
def test_options_of_before_are_read_as_what_they_became(then: str, now: str, told: int) -> None:
    words, notes = in_todays_words(then.split())
    assert words == now.split()
    assert len(notes) == told


def test_texts_are_left_alone() -> None:
    words = ["generate", "a mode --mode of life", "--prompt", "weights"]
    assert in_todays_words(words) == (words, [])
