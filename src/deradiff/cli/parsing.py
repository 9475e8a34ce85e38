"""Short texts of the command line: lams, seeds, betas, guidances, shares, shards, guards."""

import re
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np

from deradiff.analysis.criteria import RISK, Criteria, Guard, Prefer, make_criteria
from deradiff.errors import ConfigError, ResultsError, public_url

_MOST = 10_000  # numbers of one range
_MOST_SEEDS = 1_000_000


def parse_numbers(text: str, what: str = "lam") -> list[float]:
    """Ascending numbers from ``0,0.5,1``, ``start:stop:count`` (evenly spaced, with both ends), or a list of both.

    Args:
        text: the option's value.
        what: the name of one of them, for the error.

    Raises:
        ConfigError: ``text`` has another form.
    """
    expected = "expected numbers like 0,0.5,1 or start:stop:count"
    numbers: list[float] = []
    for part in text.split(","):
        try:
            if ":" in part:
                if part.count(":") != 2:
                    raise ValueError(f"{part!r} has not three parts")
                start, stop, count = part.split(":")
                if not 2 <= int(count) <= _MOST:
                    raise ValueError(
                        f"the count is {count}; expected 2 to {_MOST:,}, as both ends are among the numbers"
                    )
                numbers += [round(float(number), 10) for number in np.linspace(float(start), float(stop), int(count))]
            else:
                numbers.append(float(part))
        except ValueError as error:
            raise ConfigError(f"can't read {what}s {text!r} ({error}): {expected}") from error
    if not numbers:
        raise ConfigError(f"there is no {what} in {text!r}: {expected}")
    return sorted(set(numbers))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds 0 to N - 1 from a count N, or those that are listed: ``0,7,42``, or ``7,`` for one.

    Raises:
        ConfigError: ``text`` has another form.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        numbers = [int(part) for part in parts if part]
        if not numbers or "" in parts[:-1]:
            raise ValueError("a number is missing")
        if len(parts) == 1 and not 1 <= numbers[0] <= _MOST_SEEDS:
            raise ValueError(f"a count is from 1 to {_MOST_SEEDS:,}")
        if min(numbers) < 0:
            raise ValueError("a seed is 0 or more")
    except ValueError as error:
        expected = "expected a count like 4, or seeds like 0,7,42, or 7, for one"
        raise ConfigError(f"can't read seeds {text!r} ({error}): {expected}") from error
    return tuple(range(numbers[0])) if len(parts) == 1 else tuple(numbers)


def parse_delimiter(text: str | None) -> str | None:
    """One character that stands between fields; ``tab`` and ``\\t`` are a tabulator.

    Raises:
        ConfigError: none, several, a quote or a line break.
    """
    delimiter = "\t" if text in ("tab", "\\t") else text
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ConfigError(f"can't use the delimiter {text!r}: expected one character, such as ';', or tab")
    return delimiter


def lams_for_betas(text: str, anchor_beta: float | None) -> list[float]:
    """The lams at which an anchor of ``anchor_beta`` stands for models aligned at these betas (``500,1000,5000``).

    The reference, lam = 0, comes first: gains are measured against it.

    Raises:
        ConfigError: not numbers, or the anchor's beta isn't known.
    """
    from deradiff.mixture import lam_from_beta  # imports torch

    if anchor_beta is None:
        raise ConfigError(
            "betas are turned into lam = anchor beta / beta, but the anchor's beta isn't known: give --anchor-beta"
        )
    if not anchor_beta > 0:
        raise ConfigError(f"the anchor's beta is a KL strength, a positive number; got {anchor_beta:g}")
    try:
        return sorted({0.0, *(lam_from_beta(anchor_beta, float(part)) for part in text.split(","))})
    except ValueError as error:
        raise ConfigError(
            f"can't read betas {text!r}: expected positive numbers like 500,1000,5000 ({error})"
        ) from error


def parse_share(text: str) -> float:
    """A share from ``1%`` or ``0.01``.

    Raises:
        ConfigError: not a number between 0 and 1 (0 and 100%).
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ConfigError(f"can't use {text!r}: expected a share like 1% or 0.01, above 0 and below 100%")
    return share


_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds from ``90s``, ``5min`` or ``2h``.

    Raises:
        ConfigError: ``text`` has another form, or is no positive time.
    """
    match = re.fullmatch(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>s|min|h)", text.strip())
    seconds = float(match["number"]) * _UNITS[match["unit"]] if match else 0.0
    if not seconds > 0:
        raise ConfigError(f"can't use the time {text!r}: expected one like 90s, 5min or 2h")
    return seconds


def parse_shard(text: str) -> tuple[int, int]:
    """Shard k of n, counted from 0, from ``K/N``, counted from 1 as test runners do: 1/4, 2/4, 3/4, 4/4.

    Raises:
        ConfigError: ``text`` has another form, or not 1 <= K <= N.
    """
    try:
        number, shards = (int(part) for part in text.split("/"))
    except ValueError:
        number, shards = 0, 0
    if not 1 <= number <= shards:
        raise ConfigError(f"can't use the shard {text!r}: expected K/N with K from 1 to N, such as 1/4")
    return number - 1, shards


_MARGIN = re.compile(
    r"(?P<sign>±|\+-|\+/-|-|\+)?(?P<number>(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?)(?P<share>%)?", re.IGNORECASE
)
_MARGIN_OF_URL = re.compile(r"[±+-][^/@]*|[\d.]+%")
_EXPECTED = "expected NAME, NAME:-0.1, NAME:-5% or NAME:±5%"


def parse_guards(text: str) -> tuple[Guard, ...]:
    """Guards from ``hps,clip:-0.5%,edges:±10%``: names of rewards, each with what it may lose.

    A name alone takes the smallest change that matters. Names may hold colons themselves (``module:function``, urls).

    Raises:
        ResultsError: names the guard that can't be read.
    """
    return tuple(replace(guard, reward=public_url(guard.reward)) for guard in _guards_as_typed(text))


def private_urls(objective: str, guard: str | None) -> list[str]:
    """The urls of a question that have a user, a password or a query, which the criteria don't have."""
    names = [*map(str.strip, objective.split(",")), *(one.reward for one in _guards_as_typed(guard or ""))]
    return [name for name in dict.fromkeys(names) if public_url(name) != name]


def _guards_as_typed(text: str) -> list[Guard]:
    # "−" is copied from a text
    return list(map(_parse_guard, filter(None, map(str.strip, text.replace("−", "-").split(",")))))


def _parse_guard(text: str) -> Guard:
    name, _, margin = text.rpartition(":")
    margin = margin.strip()
    if "://" in text and not _MARGIN_OF_URL.fullmatch(margin):  # a port, or a part of the path
        return Guard(text)
    match = _MARGIN.fullmatch(margin) if name else None
    if match is None and name and (margin[:1] in ("", *"±+-.0123456789") or not _is_function(name, margin)):
        raise ResultsError(f"can't read the guard {text!r}: its margin {margin!r} is not a number; {_EXPECTED}")
    if match is None:
        return Guard(text)
    number, sign, share = float(match["number"]), match["sign"], match["share"] or ""
    if number and sign in (None, "+"):
        drop = f"{name}:-{match['number']}{share}"
        raise ResultsError(f"the guard {text!r} asks for a rise; say how much may be lost: {drop}")
    both = sign is not None and len(sign) + (sign == "±") > 1
    return Guard(name.strip(), margin=number / 100 if share else number, relative=bool(share), both=both)


def _is_function(module: str, function: str) -> bool:
    """Whether ``module:function`` may name a reward: the module is no registered reward, and the rest no number."""
    words = ("nan", "inf", "infinity", "none")
    return function.lower().rstrip("%") not in words and not entry_points(group="deradiff.rewards", name=module.strip())


def parse_criteria(
    objective: str,
    guard: str | None = None,
    kl_budget: float | None = None,
    risk: float = RISK,
    prefer: Prefer | None = None,
) -> Criteria:
    """Criteria from the options' texts: objectives separated by commas, guards as `parse_guards` reads them.

    Raises:
        ResultsError: names the part that can't be read or used.
    """
    names = tuple(public_url(part.strip()) for part in objective.split(",") if part.strip())
    return make_criteria(names, parse_guards(guard or ""), kl_budget, risk, prefer)
