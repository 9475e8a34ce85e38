"""Cells that could not be sampled, each tried several times: ``quarantine.jsonl`` in the run folder."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from deradiff.reading import check_inside, exists, parse_model, read_lines
from deradiff.runs.cells import Seed
from deradiff.runs.store import Store
from deradiff.writing import append_line, cut_torn_line, write_errors

_NAME = "quarantine.jsonl"


class Quarantined(BaseModel):
    """A cell that could not be sampled.

    Attributes:
        key: of the cell.
        prompt: of the cell, as are seed, guidance and lam.
        error: of the last try.
        tries: how often it was tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    prompt: str
    seed: Seed
    guidance: float | None
    lam: float
    error: str
    tries: int = Field(ge=1)


def read_quarantine(store: Store) -> dict[str, Quarantined]:
    """The last line about each cell, by key; cells that have an image by now are still among them.

    Raises:
        RunFolderError: a line is damaged.
    """
    return {entry.key: entry for entry in _lines(store)}


def add_to_quarantine(store: Store, entry: Quarantined) -> None:
    """Note a cell; the journal's holder calls this.

    Raises:
        RunFolderError: it can't be written.
    """
    path = store.folder / _NAME
    with write_errors(store.folder):
        check_inside(store.folder, path)
        cut_torn_line(path)
        append_line(path, entry.model_dump_json().encode())


def _lines(store: Store) -> Iterator[Quarantined]:
    path = store.folder / _NAME
    if not exists(path, "the quarantine"):
        return
    check_inside(store.folder, path)
    for number, (_, line) in enumerate(read_lines(path), start=1):
        yield parse_model(Quarantined, line, f"{path}, line {number},", "delete that line")
