"""Modules of the working folder, which are imported only where the user names one.

The working folder is not on ``sys.path`` otherwise: a stranger's run folder could hold a module of a name that some
library tries to import.
"""

import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

_REFERENCE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")

_folders: dict[str, str] = {}  # by module:function


def allow_named_in(texts: Iterable[str], folder: str | None = None) -> None:
    """Let every ``module:function`` in some texts be imported from a folder, by default the working folder."""
    for text in texts:
        _folders.update(dict.fromkeys(_REFERENCE.findall(text), folder or str(Path.cwd())))


def folder_of(reference: str) -> str | None:
    """The folder from which the user let this ``module:function`` be imported; None where there is none."""
    return _folders.get(reference)


@contextmanager
def importable(reference: str) -> Generator[None]:
    """Inside the block the working folder is the last of ``sys.path``, if the user named this ``module:function``."""
    folder = _folders.get(reference)
    if folder is None or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
