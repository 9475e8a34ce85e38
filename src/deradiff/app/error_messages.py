"""Errors on the page: in words, where the visitor looks, and never lost."""

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from deradiff.app.turns import Stopped
from deradiff.errors import DeradiffError

logger = logging.getLogger("deradiff")

UNFORESEEN = "This is a bug in deradiff; the terminal that serves this page shows it."


def shows_errors(function: Callable[..., Any], shown: Callable[[str], Any]) -> Callable[..., Any]:
    """A listener whose errors visitors read: ours as they are, others as a sentence while the log has the traceback.

    Args:
        function: the listener; a generator streams.
        shown: from an error's words to what the listener's outputs show.
    """
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def streamed(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  (in words)
                yield shown(_in_words(error))

        return streamed

    @wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  (in words)
            return shown(_in_words(error))

    return plain


def _in_words(error: Exception) -> str:
    if isinstance(error, Stopped):
        return "Stopped"
    if isinstance(error, DeradiffError):
        return f"Error: {error}"
    logger.error("the page met an error", exc_info=error)
    return UNFORESEEN
