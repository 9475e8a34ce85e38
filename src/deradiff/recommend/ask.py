"""What a person asks for: rewards to raise, rewards that must hold, and how far the model may move."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from deradiff.errors import ResultsError
from deradiff.recommend.intervals import Floats
from deradiff.results import Results

_GUARD = re.compile(r"(?P<sign>±|\+-|\+/-|-|\+)?(?P<number>\d+(\.\d*)?|\.\d+)(?P<share>%)?")


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A reward that must not move from the reference by more than is allowed.

    Attributes:
        reward: its name.
        allowed: the largest drop, 0 or more, in units of the reward, or as a share of its mean at the reference.
        relative: whether it is a share.
        both: whether a rise counts as well as a drop.
    """

    reward: str
    allowed: float = 0.0
    relative: bool = False
    both: bool = False

    def __str__(self) -> str:
        if not self.allowed:
            return self.reward
        size = f"{100 * self.allowed:g} %" if self.relative else f"{self.allowed:g}"
        return f"{self.reward} ({'±' if self.both else '-'}{size} allowed)"

    @property
    def words(self) -> str:
        """What it fails by, to follow the reward's name."""
        if not self.allowed:
            return "significantly off the reference" if self.both else "significantly below the reference"
        size = f"{100 * self.allowed:g} %" if self.relative else f"{self.allowed:g}"
        return f"significantly more than {size} {'off' if self.both else 'below'} the reference"

    def slack(self, results: Results) -> list[Floats]:
        """What is left of the allowance, tables (P, S, L) with means below 0 where it is used up."""
        scores = results.scores[self.reward]
        reference = scores[:, :, [results.lams.index(0)]]
        room = self.allowed * reference * math.copysign(1, reference.mean()) if self.relative else self.allowed
        change = scores - reference
        return [room + change, room - change] if self.both else [room + change]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question to a sweep.

    Attributes:
        objectives: rewards to raise, one or more.
        guards: rewards that must hold.
        kl_budget: the largest mean path KL to the reference, in nats; None for any.
    """

    objectives: tuple[str, ...]
    guards: tuple[Guard, ...] = ()
    kl_budget: float | None = None

    @property
    def held(self) -> list[str]:
        """Names of the guards' rewards."""
        return [guard.reward for guard in self.guards]

    @property
    def rewards(self) -> list[str]:
        """Names of all rewards asked about, objectives first."""
        return [*self.objectives, *self.held]


def ask(objective: str, guard: str | None = None, kl_budget: float | None = None) -> Ask:
    """A question as it is typed.

    Args:
        objective: names of rewards, ``pickscore`` or ``pickscore,hps``.
        guard: names with what each may lose: ``hps:0,clip:-0.5%,edges:±10%``; a name alone may lose nothing.
        kl_budget: in nats, above 0.

    Raises:
        ResultsError: says which part can't be read, or asks for two things at once.
    """
    objectives = tuple(part.strip() for part in objective.split(",") if part.strip())
    guards = tuple(_guards(guard or ""))
    if not objectives:
        raise ResultsError("no objective: name a reward to raise, such as --objective pickscore")
    names = [*objectives, *(own.reward for own in guards)]
    if twice := [name for name in objectives if objectives.count(name) > 1]:
        raise ResultsError(f"the objective {twice[0]!r} is given twice; name each reward once")
    if twice := [name for name in objectives if names.count(name) > 1]:
        raise ResultsError(f"guard and objective are both {twice[0]!r}; name each reward once")
    if twice := [own.reward for own in guards if names.count(own.reward) > 1]:
        raise ResultsError(f"the guard {twice[0]!r} is given twice; name each reward once")
    if kl_budget is not None and not (math.isfinite(kl_budget) and kl_budget > 0):
        raise ResultsError(f"the KL budget is a number of nats above 0, got {kl_budget:g}")
    return Ask(objectives=objectives, guards=guards, kl_budget=kl_budget)


def _guards(text: str) -> Iterator[Guard]:
    for part in filter(None, map(str.strip, text.replace("−", "-").split(","))):  # "−" is copied from a text
        # the name of a reward module:function holds a colon itself
        name, _, allowed = part.rpartition(":")
        found = _GUARD.fullmatch(allowed.strip()) if name else None
        if found is None and name and allowed[:1] in "±+-.0123456789":
            raise ResultsError(f"can't read the guard {part!r}: expected NAME, NAME:-0.1, NAME:-5% or NAME:±5%")
        if found is None:
            yield Guard(reward=part)
            continue
        number, sign, share = float(found["number"]), found["sign"], found["share"] or ""
        if number and sign in (None, "+"):
            drop = f"{name}:-{found['number']}{share}"
            raise ResultsError(f"the guard {part!r} asks for a rise; say how much may be lost: {drop}")
        yield Guard(
            reward=name.strip(),
            allowed=number / 100 if share else number,
            relative=bool(share),
            both=sign is not None and len(sign) + (sign == "±") > 1,
        )
