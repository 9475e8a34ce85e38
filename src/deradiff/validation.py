"""Settings that say what is wrong with them: the base of every public pydantic model."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from deradiff.errors import ConfigError

Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]  # as tables hold it
_SHOWN = 3  # errors that are described


class ValidatedModel(BaseModel):
    """Frozen settings; a wrong one raises an error that names it, what was given and what is expected.

    Raises:
        ConfigError: a value that can't be used, a setting that is missing, or one that there isn't.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(describe_errors(error, type(self).model_fields)) from error


def describe_errors(error: ValidationError, known: Iterable[str] = ()) -> str:
    """What is wrong with some settings, in one line.

    Args:
        error: of pydantic.
        known: names of all settings, for a hint at one that is misspelled.
    """
    errors, names = _innermost(error.errors()), list(known)
    more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    return "; ".join(_describe(details, error.title, names) for details in errors[:_SHOWN]) + more


def _innermost(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without what is said of a list because of what is said of its items: pydantic counts the good ones alone."""
    places = [details["loc"] for details in errors]
    return [
        details
        for details, place in zip(errors, places, strict=True)
        if not any(len(other) > len(place) and other[: len(place)] == place for other in places)
    ]


def closest_hint(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelled one is nearest to, as a question; all of them where none is near."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"


def _describe(details: ErrorDetails, title: str, known: list[str]) -> str:
    name, given = ".".join(map(str, details["loc"])), reprlib.repr(details["input"])
    context = {
        key: f"{value:g}" if isinstance(value, float) else value for key, value in details.get("ctx", {}).items()
    }
    if details["type"] == "missing":
        return f"{title} needs {name}, which is missing"
    if details["type"] == "extra_forbidden":
        hint = f"; {closest_hint(name, known)}" if known else ""
        return f"{title} has no setting {name!r}{hint}"
    if details["type"] == "value_error":
        return f"{name} is {given}: {context['error']}" if name else str(context["error"])
    expected = _EXPECTED.get(details["type"])
    text = details["msg"] if expected is None else f"expected {expected.format(**context)}"
    return f"{name} is {given}; {text}"


_EXPECTED = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "too_short": "{min_length} or more",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_unicode"), "a text"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "dataclass_type"), "an object"),
}
