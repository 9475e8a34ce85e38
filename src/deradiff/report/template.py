"""How pages are made of templates: every text in them is made `printable` and escaped, whoever wrote it."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from gzip import compress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from deradiff.errors import printable

_FOLDER = Path(__file__).parent


def render(name: str, values: Mapping[str, Any], folders: Sequence[Path] = ()) -> bytes:
    """A page, self-contained with plotly.

    Args:
        name: of the template.
        values: of its variables.
        folders: to look in before the report's own.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, _FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_printable,
    )
    return environment.get_template(name).render(**values, plotly=_packed_plotly()).encode()


@cache
def _packed_plotly() -> Markup:
    """Plotly as gzip in base64, two fifths of its size; the page's script unpacks it."""
    return Markup(b64encode(compress(get_plotlyjs().encode(), mtime=0)).decode())


def _printable(value: Any) -> Any:
    """A text as it may be shown; a lam stays on the line of its name."""
    is_text = isinstance(value, str) and not isinstance(value, Markup) and not value.startswith("data:")
    return re.sub(r"\blam = (?=\d)", "lam\u00a0=\u00a0", printable(value)) if is_text else value
