"""Every page of the documentation is reached from its index, and every public name from the reference."""

import re
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
FILES = sorted(path for path in DOCS.rglob("*") if path.suffix in (".md", ".rst"))
TOCTREES = {  # by kind of page: the block, whose lines are options, or entries
    ".md": re.compile(r"^:::\{toctree\}\n(.*?)^:::$", re.MULTILINE | re.DOTALL),
    ".rst": re.compile(r"^\.\. toctree::\n((?:   .*\n|\n)*)", re.MULTILINE),
}


def entries(page: Path) -> list[Path]:
    """The pages that the toctrees of a page name."""
    lines = "\n".join(TOCTREES[page.suffix].findall(page.read_text(encoding="utf-8"))).splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith(":")]
    targets = [match[1] if (match := re.search(r"<(.+)>$", name)) else name for name in names]
    return [found for target in targets for found in files_of(page.parent / target)]


def files_of(page: Path) -> list[Path]:
    found = [file for file in (page.with_suffix(".md"), page.with_suffix(".rst")) if file in FILES]
    assert len(found) == 1, f"{page}: a toctree names {len(found)} pages"
    return found


def test_the_index_reaches_every_page_once() -> None:
    reached, waiting = list[Path](), [DOCS / "index.md"]
    while waiting:
        reached.append(waiting.pop())
        waiting += entries(reached[-1])
    assert sorted(reached) == FILES
    assert len(reached) > 25


REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").iterdir())
WHOLE = set(re.findall(r"automodule:: ([\w.]+)\n   :members:\n", REFERENCE))
NAMED = set(re.findall(r"auto(?:class|function):: ([\w.]+)$", REFERENCE, flags=re.MULTILINE))


def value_of(name: str) -> Any:
    module, _, own = name.rpartition(".")
    return getattr(import_module(module), own)


def is_documented(room: str, name: str) -> bool:
    """Whether a name has an entry of its own, or is a member of a module that is documented whole."""
    value = value_of(f"{room}.{name}")
    if any(value_of(entry) is value for entry in NAMED) or (room in WHOLE and hasattr(import_module(room), "__all__")):
        return True
    return value.__module__ in WHOLE or name in re.findall(r"\w+Error", REFERENCE)


@pytest.mark.parametrize("room", ["", ".bake", ".align", ".cluster", ".compare", ".rewards", ".testing", ".testbed"])
def test_the_reference_has_every_public_name(room: str) -> None:
    module = import_module(f"deradiff{room}")
    here = [name for name, value in vars(module).items() if isclass(value) or isfunction(value)]
    own = [name for name in here if name[0] != "_" and getattr(module, name).__module__.startswith(module.__name__)]
    public = getattr(module, "__all__", own)
    assert public
    assert [name for name in public if not is_documented(module.__name__, name)] == []
