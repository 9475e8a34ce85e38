"""Reward cards: what a reward measures, its range, model, licence and margin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

from deradiff.results import Direction, RewardInfo

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Card:
    """The description of a reward.

    Attributes:
        name: its common name.
        measures: the property of an image that it measures.
        range: of its scores, in words.
        model: hub ids of the weights, or "none".
        licence: of the weights.
        citation: of the paper, or of the code where there is no paper.
        direction: ``higher`` is better, scores should stay ``steady``, or neither (``none``).
        margin: the smallest change that matters, in units of the score, or as a share of its mean at lam = 0 if
            ``relative``; None if unknown.
        relative: whether the margin is a share.
        margin_source: justification of the margin.
        floor: the lowest possible score, if it is near enough to real scores to bound a prompt's loss.
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
        """The part that a run records beside the scores."""
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
        attributes: Any = function
        attributes.check_prompt = check
        return function

    return attach


class HasCard(Protocol[P, R_co]):
    """A function with a card."""

    card: Card

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function."""
        ...


def with_card(card: Card) -> Callable[[Callable[P, R_co]], HasCard[P, R_co]]:
    """Decorate a function with its card, the attribute ``card``."""

    def attach(function: Callable[P, R_co]) -> HasCard[P, R_co]:
        decorated: Any = function
        decorated.card = card
        return decorated

    return attach
