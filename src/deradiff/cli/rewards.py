"""``deradiff rewards``: which rewards there are."""


def rewards() -> None:
    """List the registered rewards and what is known of each, without loading any weights."""
    import inspect

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from deradiff.rewards import card_of, registered, reward_names

    columns = ("name", "measures", "range", "better", "model", "licence", "citation")
    table = Table(*(Column(name, overflow="fold") for name in columns), show_lines=True)
    for name in reward_names():
        found = registered(name)
        if card := card_of(found):
            known = (card.measures, card.range, card.better, card.model, card.licence, card.citation)
        else:
            known = ((inspect.getdoc(found) or "").partition("\n")[0],)
        table.add_row(*map(escape, (name, *known)))
    Console().print(table)
