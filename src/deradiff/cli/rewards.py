"""``deradiff rewards``: which rewards there are."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deradiff.rewards.card import Card


def rewards() -> None:
    """List the registered rewards and what is known of each, without loading any weights."""
    import inspect

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deradiff.cli.common import plain
    from deradiff.errors import printable
    from deradiff.rewards import card_of, find_registered, reward_names

    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    for name in reward_names():
        reward = find_registered(name)
        if card := card_of(reward):
            direction = {"higher": "higher is better", "steady": "should stay as it is", "none": "neither is better"}
            facts = [f"{card.range}; {direction[card.direction]}", *_origin(card)]
            description = plain(card.measures).append("".join(f"\n{printable(fact)}" for fact in facts), style="dim")
        else:
            description = plain((inspect.getdoc(reward) or "").partition("\n")[0])
        table.add_row(Text(printable(name), style="bold"), description)
    Console().print(table)


def _origin(card: "Card") -> list[str]:
    """Where a reward comes from, as far as it comes from somewhere."""
    share = f"{100 * card.margin:g}% of the reference" if card.margin and card.relative else f"{card.margin}"
    margin = f"{share} ({card.margin_source})" if card.margin else "none"
    facts = [
        ("smallest change that matters", margin),
        ("model", card.model),
        ("licence", card.licence),
        ("by", card.citation),
    ]
    return [f"{what}: {fact}" for what, fact in facts if fact != "none"]
