"""What is to be known of a reward before its numbers are believed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from deradiff.results import Direction, RewardInfo

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reward measures, on which scale, by which model, under which licence.

    Attributes:
        name: as people say it.
        measures: what it tells of an image.
        range: of its scores, in words.
        model: hub ids of what is loaded, or "none".
        licence: of the weights.
        citation: of the paper, or of the code where there is no paper.
        direction: whether ``higher`` is better, it should stay ``steady``, or neither (``none``).
        margin: the smallest change that matters, in units of the score, or as a share of its mean at lam = 0 if
            ``relative``; None where nobody has said.
        relative: whether the margin is a share.
        margin_source: where the margin comes from.
        floor: the lowest score possible, where it is near enough to real scores to bound what a prompt can lose.
    """

    name: str
    measures: str
    range: str
    model: str
    licence: str
    citation: str
    direction: Direction = "higher"
    margin: float | None = None
    relative: bool = False
    margin_source: str = ""
    floor: float | None = None

    @property
    def info(self) -> RewardInfo:
        """What is recorded of it beside its scores."""
        return RewardInfo(
            direction=self.direction,
            margin=self.margin,
            relative=self.relative,
            margin_source=self.margin_source,
            floor=self.floor,
        )


F = TypeVar("F", bound=Callable[..., object])


def checks_prompts(check: Callable[[str], object]) -> Callable[[F], F]:
    """Give a reward its attribute ``check_prompt``, which raises for a prompt that can't be scored.

    It is asked before images are sampled (`deradiff.rewards.check_prompts`).
    """

    def attach(function: F) -> F:
        cast(Any, function).check_prompt = check
        return function

    return attach


class Carded(Protocol[P, R_co]):
    """A function that has a card."""

    card: Card

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """As the function."""
        ...


def carded(card: Card) -> Callable[[Callable[P, R_co]], Carded[P, R_co]]:
    """Give a function its card, as its attribute ``card``."""

    def attach(function: Callable[P, R_co]) -> Carded[P, R_co]:
        given = cast(Carded[P, R_co], function)
        given.card = card
        return given

    return attach
