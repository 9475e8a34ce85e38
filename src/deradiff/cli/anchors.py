"""``deradiff anchors``: which published anchors there are."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deradiff.hub.published import PublishedAnchor


def anchors() -> None:
    """List published anchors and what is known of each, with its sources; uses no network."""
    from rich.console import Console
    from rich.table import Table

    from deradiff.cli.common import plain
    from deradiff.hub.published import anchors as published

    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    for anchor in published():
        table.add_row(plain(anchor.name).append("".join(f"\n  {fact}" for fact in _facts(anchor)), style="dim"))
    Console().print(table)


def _facts(anchor: "PublishedAnchor") -> list[str]:
    beta = "unknown" if anchor.beta is None else f"{anchor.beta:g} ({anchor.convention})"
    facts = [
        ("base", anchor.base),
        ("method", f"{anchor.method}, a {anchor.form}"),
        ("nominal beta", beta),
        ("licence", anchor.licence),
        ("sources", "; ".join(anchor.sources)),
        ("note", anchor.note),
    ]
    return [f"{name}: {fact}" for name, fact in facts if fact]
