"""A comparison as one page that needs nothing but a browser."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from deradiff.compare import figures
from deradiff.compare.outcome import Table
from deradiff.report import page as report

_HOUSES = [Path(__file__).parent, Path(report.__file__).parent]  # the report's css serves both


def render(tables: Sequence[Table], facts: Mapping[str, str]) -> str:
    """One self-contained html page.

    Args:
        tables: at least one; the first gives the headline.
        facts: what a reader needs to repeat the comparison, by name.
    """
    environment = Environment(
        loader=FileSystemLoader(_HOUSES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    drawn = [
        (table, *map(_json, (figures.rewards(table), figures.errors(table), figures.to_optimum(table))))
        for table in tables
    ]
    names = {arm: figures.NAMES[arm] for arm in figures.EMULATIONS}
    template = environment.get_template("page.html")
    return template.render(tables=tables, drawn=drawn, facts=facts, names=names, plotly=Markup(get_plotlyjs()))


def _json(figure: figures.go.Figure | None) -> str | None:
    return None if figure is None else figure.to_json()
