"""Errors on the page: in words, and never lost."""

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from deradiff.app.turns import Stopped
from deradiff.errors import DeradiffError

logger = logging.getLogger("deradiff")

UNFORESEEN = "This is a bug in deradiff; the terminal that serves this page shows it."


def shows_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """A listener whose errors visitors read: ours as they are, others as a sentence while the log has the traceback."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def streamed(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise _in_words(error) from error

        return streamed

    @wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _in_words(error) from error

    return plain


def _in_words(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, Stopped):
        return gr.Error("Stopped.", print_exception=False)
    if isinstance(error, DeradiffError):
        return gr.Error(escape(str(error)), print_exception=False)  # the page shows it as html
    logger.error("the page met an error", exc_info=error)
    return gr.Error(UNFORESEEN, print_exception=False)
