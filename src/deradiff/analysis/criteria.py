"""The question to a run: rewards to raise, rewards that must hold, and how far the model may move."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import numpy as np

from deradiff.errors import ResultsError
from deradiff.results import Results
from deradiff.votes import VOTES

Prefer = Literal["smallest", "best"]

RISK = 0.05
_MARGIN_TEXT = re.compile(r"[±+−-]?[+−/-]*(?P<number>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)(?P<share>%)?", re.IGNORECASE)
DEFAULT_EFFECT = 0.2  # standard deviations between prompts: "small" (Cohen 1988, Statistical Power Analysis, 2.2.3)


@dataclass(frozen=True)
class Guard:
    """A reward that must not fall below the reference by more than a margin.

    Attributes:
        reward: its name.
        margin: what it may lose, above 0, in units of the reward, or as a share of its mean at lam = 0. None for the
            smallest change that matters: the margin on the reward's card, else 0.2 standard deviations between prompts.
        relative: whether the margin is a share.
        both: whether a rise by more than the margin counts as well; None for what the reward's card says.
        floor: the lowest score possible; it bounds what an unsampled prompt could lose. None for that of the reward's
            card.

    Raises:
        ResultsError: a value of the wrong type, a name with a margin in it, or a margin that isn't above 0: no number
            of prompts shows that nothing at all is lost.
    """

    reward: str
    margin: float | None = field(default=None, kw_only=True)
    relative: bool = field(default=False, kw_only=True)
    both: bool | None = field(default=None, kw_only=True)
    floor: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_guard_name(self.reward)
        for what, value in (("margin", self.margin), ("floor", self.floor)):
            if value is not None and not _is_number(value):
                raise ResultsError(
                    f"the {what} of guard {self.reward!r} is a number, got {value!r}; "
                    f"Guard({self.reward!r}, margin=0.01, relative=True) lets it lose 1%"
                )
        if self.margin == 0:
            raise ResultsError(
                f"the guard {self.reward!r} has a margin of 0, which no number of prompts can show to hold; say what "
                f"may be lost, such as {self.reward}:-1%, or name it alone for the smallest change that matters"
            )
        if self.margin is not None and not (math.isfinite(self.margin) and self.margin > 0):
            raise ResultsError(
                f"the margin of guard {self.reward!r} is how much may be lost, a number above 0, got {self.margin:g}; "
                f"Guard({self.reward!r}, margin=0.01, relative=True) lets it lose 1%"
            )
        if self.floor is not None and not math.isfinite(self.floor):
            raise ResultsError(f"the floor of guard {self.reward!r} is a finite number, got {self.floor:g}")


def _check_guard_name(reward: Any) -> None:
    """Raise for a guard as the command line spells it: Python gives the margin by its own argument."""
    if not isinstance(reward, str) or not reward:
        raise ResultsError(f"a guard names a reward, such as Guard('hps'), got {reward!r}")
    name, _, margin = reward.rpartition(":")
    match = _MARGIN_TEXT.fullmatch(margin.strip()) if name else None
    if match is None or ("://" in reward and margin[:1].isdigit()):  # the port of a url
        return
    share = match["share"] is not None
    size = float(match["number"]) / (100 if share else 1)
    both = ", both=True" if "±" in margin else ""
    raise ResultsError(
        f"the guard {reward!r} has its margin in the name; from Python write "
        f'deradiff.Guard("{name}", margin={size:g}{", relative=True" if share else ""}{both})'
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """A question to a run.

    Attributes:
        objectives: names of rewards to raise, one or more; or ``votes`` alone, for what people prefer.
        guards: rewards that must hold.
        kl_budget: the largest mean path KL to the reference, in nats; None for no limit.
        risk: the probability accepted that a guard's true loss at the recommended lam exceeds its margin, in (0, 0.5].
        prefer: among lams that hold and are within one standard error of the best, the ``smallest`` (Breiman et al.
            1984, section 3.4.3), or the ``best``.

    Raises:
        ResultsError: names the part that is unusable and what was expected.
    """

    objectives: tuple[str, ...]
    guards: tuple[Guard, ...] = ()
    kl_budget: float | None = None
    risk: float = RISK
    prefer: Prefer = "smallest"

    def __post_init__(self) -> None:
        if isinstance(self.objectives, str) or not all(isinstance(name, str) for name in self.objectives):
            raise ResultsError(f"objectives are names of rewards, such as ('pickscore',), got {self.objectives!r}")
        if not self.objectives or not all(self.objectives):
            raise ResultsError("no objective: name the reward to raise")
        for guard in self.guards:
            if not isinstance(guard, Guard):
                raise ResultsError(
                    f"expected guards such as deradiff.Guard('hps', margin=0.01, relative=True), got {guard!r}"
                )
        for what, value in (("KL budget", self.kl_budget), ("risk", self.risk)):
            if not _is_number(value) and not (what == "KL budget" and value is None):
                raise ResultsError(f"the {what} is a number, got {value!r}")
        names = [*self.objectives, *self.guard_names]
        for name in names:
            if names.count(name) > 1:
                raise ResultsError(f"{name!r} is named twice among objectives and guards; name each reward once")
        if VOTES in names and self.objectives != (VOTES,):
            raise ResultsError(
                "votes are an objective of their own: name no other beside them, and only rewards as guards"
            )
        if self.kl_budget is not None and not (math.isfinite(self.kl_budget) and self.kl_budget > 0):
            raise ResultsError(f"the KL budget is a number of nats above 0, got {self.kl_budget:g}")
        if not 0 < self.risk <= 0.5:
            raise ResultsError(f"the risk is a probability above 0 and at most 0.5, got {self.risk:g}")
        if self.prefer not in ("smallest", "best"):
            raise ResultsError(f"prefer the 'smallest' lam or the 'best', got {self.prefer!r}")

    @property
    def by_votes(self) -> bool:
        """Whether people's votes are the objective."""
        return VOTES in self.objectives

    @property
    def guard_names(self) -> list[str]:
        """Names of the guards' rewards."""
        return [guard.reward for guard in self.guards]

    @property
    def rewards(self) -> list[str]:
        """Names of the rewards among objectives and guards, objectives first."""
        return [*(name for name in self.objectives if name != VOTES), *self.guard_names]


@dataclass(frozen=True, kw_only=True)
class Margin:
    """By how much a reward may change, in its units.

    Attributes:
        size: above 0.
        share: the same as a share of the mean at lam = 0; None for a margin in the reward's units.
        both: whether a rise counts as well as a fall.
        source: where it comes from, as text; empty where the user chose it.
    """

    size: float
    share: float | None
    both: bool
    source: str = ""

    def __str__(self) -> str:
        return f"{self.size:.3g}" if self.share is None else f"{100 * self.share:g}%"


def resolve_margin(results: Results, guard: Guard) -> Margin:
    """The margin of a guard: that of ``guard``, else that of the reward's card, else a small effect.

    Raises:
        ResultsError: a reward without a card whose prompts all score the same at lam = 0, or a share of a mean of 0.
    """
    info = results.info(guard.reward)
    both = info.direction == "steady" if guard.both is None else guard.both
    reference = results.scores[guard.reward][:, :, results.zero]
    level = abs(float(np.nanmean(reference)))
    margin, relative, source = guard.margin, guard.relative, ""
    if margin is None:
        margin, relative, source = info.margin, info.relative, info.margin_source or "its card"
    if margin is None:
        sampled = reference[np.isfinite(reference).any(axis=1)]
        size = DEFAULT_EFFECT * float(np.nanmean(sampled, axis=1).std(ddof=1)) if len(sampled) > 1 else 0.0
        if size == 0:
            raise ResultsError(
                f"all prompts score the same {guard.reward} at lam = 0, so there is no default margin; say what it may "
                f"lose, such as {guard.reward}:-1%"
            )
        return Margin(size=size, share=None, both=both, source=f"{DEFAULT_EFFECT} standard deviations between prompts")
    if relative and level == 0:
        raise ResultsError(
            f"the mean {guard.reward} at lam = 0 is 0, so a margin of {100 * margin:g}% is nothing; give it in the "
            f"units of the reward, such as {guard.reward}:-0.1"
        )
    share = margin if relative else None
    return Margin(size=margin * level if relative else margin, share=share, both=both, source=source)


def make_criteria(
    objectives: str | Sequence[str],
    guards: Guard | str | Sequence[Guard | str] = (),
    kl_budget: float | None = None,
    risk: float = RISK,
    prefer: Prefer | None = None,
) -> Criteria:
    """`Criteria` from what is convenient to write: one name for one objective, the bare name of a reward for `Guard`.

    ``prefer`` is ``smallest`` by default, and ``best`` of votes: people's preference is no proxy that a larger lam
    could hack.

    Raises:
        ResultsError: a part of another type, or one that `Criteria` or `Guard` rejects.
    """
    names = (objectives,) if isinstance(objectives, str) else _items("objectives", objectives)
    listed = (guards,) if isinstance(guards, Guard | str) else _items("guards", guards)
    typed = tuple(Guard(guard) if isinstance(guard, str) else guard for guard in listed)
    if prefer is None:
        prefer = "best" if VOTES in names else "smallest"
    return Criteria(objectives=names, guards=typed, kl_budget=kl_budget, risk=risk, prefer=prefer)


def _items(what: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, Sequence):
        example = "['pickscore']" if what == "objectives" else "[deradiff.Guard('hps', margin=0.01, relative=True)]"
        raise ResultsError(f"{what}: expected a list such as {example}, got {values!r}")
    return tuple(values)
