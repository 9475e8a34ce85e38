"""Hypothesis strategies that mutate valid bytes: byte by byte, and of JSON and YAML value by value."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 2, 0.5, -0.0, 10**30, -(2**63), 2**64, 1e308, 1e-320]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.sampled_from(["", "\x00", "\ud800", "\x1b[2J", "\u202e", "a" * 3000, "../../x", "nan", "[/b]", "0" * 32]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
_KEYS = st.sampled_from(["self", "cls", "kind", "keys", "schema", "recipe", "__class__", "", "prompts"])
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=4
)
_CHUNKS = st.sampled_from(
    [
        *(
            b"\x00",
            b"\xff",
            b"\n",
            b"\r",
            b'"',
            b"'",
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b"\xed\xa0\x80",
            b"\\ud800",
            b"-",
        ),
        *(b"&a [*a]", b"*a", b"!!python/object:os.system", b"<<: ", b"NaN", b"1e999", b"9" * 5000, b"[" * 3000, b"\t"),
        *(b"http://u:p@h:1/p?q", b":-1%", b"\xe2\x88\x92", b"%", b"=", b"/", b"\xef\xbb\xbf"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], is_json: bool) -> bytes:
    """A seed with one mutation or a few."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        if is_json and draw(st.integers(0, 3)):
            content = _with_another_value(draw, content)
        else:
            content = _with_other_bytes(draw, content)
    _drawn[:] = [content]
    return content


_drawn: list[bytes] = []


def last_drawn() -> bytes:
    """The bytes that were drawn last: of a failure, the minimal ones."""
    return _drawn[0]


def _with_another_value(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, or a line of it, with a value replaced, removed or added."""
    lines = content.splitlines()
    if not lines:
        return content
    number = draw(st.integers(0, len(lines) - 1)) if len(lines) > 1 and _is_json(lines[0]) else None
    text = content if number is None else lines[number]
    if not _is_json(text):
        return content
    value = json.loads(text)
    parent, key = _pick(draw, value)
    new = draw(_VALUES)
    if parent is None:
        value = new
    elif draw(st.integers(0, 4)) == 0:
        del parent[key]
    elif isinstance(parent, dict) and draw(st.integers(0, 4)) == 0:
        parent[draw(_KEYS)] = new
    else:
        parent[key] = new
    replaced = json.dumps(value).encode()
    if number is None:
        return replaced
    return b"\n".join([*lines[:number], replaced, *lines[number + 1 :], b""])


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _pick(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """A value inside another one: what holds it, and where; None for the whole."""
    parent, key = None, None
    while isinstance(value, dict | list) and value and draw(st.integers(0, 5)):
        parent = value
        key = draw(st.sampled_from(sorted(value))) if isinstance(value, dict) else draw(st.integers(0, len(value) - 1))
        value = value[key]
    return parent, key


def _with_other_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut, repeated, changed or put in."""
    start = draw(st.integers(0, len(content)))
    stop = draw(st.integers(start, min(len(content), start + 64)))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + content[stop:]
    if kind == 2:
        return content[:stop] + content[start:]
    if kind == 3:
        return content[:start] + draw(st.binary(min_size=1, max_size=8)) + content[stop:]
    if kind == 4 and start < len(content):
        return content[:start] + bytes([content[start] ^ 1 << draw(st.integers(0, 7))]) + content[start + 1 :]
    return content[:start] + draw(_CHUNKS) + content[stop:]
