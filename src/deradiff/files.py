"""Writing one file whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deradiff.errors import PlanError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which becomes it when all went well; its folders are made.

    Raises:
        PlanError: it can't be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise PlanError(f"can't write {path} ({error.strerror or error}); make room, or give another file") from error
