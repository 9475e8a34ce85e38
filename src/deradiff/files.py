"""Writing one file whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deradiff.errors import DeradiffError, PlanError


@contextmanager
def replacing(path: Path, error: type[DeradiffError] = PlanError) -> Iterator[Path]:
    """A file to write beside ``path``, which becomes it when all went well; its folders are made.

    Raises:
        DeradiffError: it can't be written; of the kind asked for.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as why:
        raise error(f"can't write {path} ({why.strerror or why}); make room, or give another file") from why
