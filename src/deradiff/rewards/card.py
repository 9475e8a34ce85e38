"""What is to be known of a reward before its numbers are believed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, ParamSpec, Protocol, TypeVar, cast

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
        better: whether more of it is better, no change is, or neither.
    """

    name: str
    measures: str
    range: str
    model: str
    licence: str
    citation: str
    better: Literal["higher", "steady", "none"] = "higher"


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
