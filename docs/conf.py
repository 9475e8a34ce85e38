"""How Sphinx builds these pages: ``make docs``. Nothing is fetched, unless DERADIFF_DOCS_ONLINE=1 asks for links."""

import os
from importlib.metadata import version as version_of
from inspect import isclass, signature
from typing import Any, get_type_hints

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

project = "deradiff"
author = "The deradiff authors"
copyright = author
version = release = version_of("deradiff")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "none"  # a block without a language is of commands
default_role = "py:obj"  # names in single backticks of docstrings, linked where they are documented

# Links into other projects' references need their inventories, which an offline build can't fetch.
_INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "diffusers": "https://huggingface.co/docs/diffusers/main/en/",
}
_online = os.environ.get("DERADIFF_DOCS_ONLINE") == "1"
intersphinx_mapping = {name: (address, None) for name, address in _INVENTORIES.items()} if _online else {}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a dataclass names its fields once
napoleon_attr_annotations = False  # the signature above has their types

html_theme = "furo"
html_title = f"deradiff {version}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]


def _plain_signature(_app: Sphinx, _what: str, _name: str, value: Any, *_more: Any) -> tuple[str, str] | None:
    """The signature of settings without pydantic's constraints, which their docstrings say in words."""
    if not (isclass(value) and issubclass(value, BaseModel)):
        return None
    whole = signature(value)
    annotations = {name: field.annotation for name, field in whole.parameters.items()}
    hints = get_type_hints(
        type("Fields", (), {"__module__": "typing", "__annotations__": annotations})
    )  # leaves Annotated out, at any depth
    plain = [field.replace(annotation=hints[name]) for name, field in whole.parameters.items()]
    return stringify_signature(whole.replace(parameters=plain), unqualified_typehints=True), ""


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _plain_signature)
