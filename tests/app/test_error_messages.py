"""Errors reach the visitor in words, where they were caused; those that nobody foresaw reach the log too."""

import logging
from collections.abc import Iterator

import pytest

from deradiff.app.error_messages import UNFORESEEN, shows_errors
from deradiff.app.markup import problem
from deradiff.errors import ConfigError


def fails(error: Exception) -> str:
    raise error


def test_a_listeners_error_is_what_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    listener = shows_errors(fails, lambda words: ("kept", words))
    assert listener(ConfigError("no prompt")) == ("kept", "Error: no prompt")
    assert not caplog.records
    with caplog.at_level(logging.ERROR, "deradiff"):
        assert listener(KeyError("secret")) == ("kept", UNFORESEEN)
    assert caplog.records[0].exc_info is not None


def test_a_stream_ends_with_its_error() -> None:
    def streams(count: int) -> Iterator[str]:
        for number in range(count):
            yield str(number)
        raise ConfigError("no more")

    assert list(shows_errors(streams, str.upper)(2)) == ["0", "1", "ERROR: NO MORE"]


def test_an_error_on_the_page_is_only_text() -> None:
    assert "<img" not in problem("<img src=x onerror='window.hacked=1'>")
    assert "$" not in problem("${window.hacked=1}")
