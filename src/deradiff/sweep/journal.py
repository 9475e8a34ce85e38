"""A run folder: ``plan.json``, ``images/`` and append-only journals from which everything is rebuilt.

A batch's images are written before the record that names them, so that what a journal says exists, exists. Each shard
writes a journal of its own; reading merges them.
"""

import json
import reprlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from deradiff.errors import PlanError
from deradiff.results import Results
from deradiff.sweep.batches import Cell
from deradiff.sweep.index import Index
from deradiff.sweep.plan import Plan
from deradiff.sweep.records import BatchRecord, Records, ScoreRecord
from deradiff.sweep.table import results
from deradiff.sweep.writer import Writer, alone, hold, refuse_held, told

SEARCH = "search.json"  # what a search keeps in its folder, beside the runs of its rounds
T = TypeVar("T", bound=BaseModel)


class Journal:
    """One run and its records; nothing is written before the first image is.

    Attributes:
        folder: the run folder.
        plan: of the run.
        scores: what its images scored.

    Raises:
        PlanError: the folder holds a run of another plan, a damaged one, or can't be a folder.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.scores = Records(folder / "scores.jsonl", ScoreRecord, lambda r: self._misfit(r.batch, len(r.scores)))
        self._name = plan.image_names()
        refuse_file(folder)
        _refuse_search(folder)
        if (folder / "plan.json").exists():
            refuse_other(folder, _read_plan(folder), plan)
        elif self._journals():
            raise PlanError(f"{folder} has a journal but no plan.json to read it by; give another --out")

    @classmethod
    def open(cls, folder: Path) -> "Journal":
        """The journal of an existing run.

        Raises:
            PlanError: no run there, or a damaged one.
        """
        _refuse_search(folder)
        if not (folder / "plan.json").is_file():
            raise PlanError(f"{folder} is no run folder: it has no plan.json; make one with deradiff sweep")
        return cls(folder, _read_plan(folder))

    @contextmanager
    def writing(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Writer]:
        """Hold the journal of shard k of n for this process: notes the plan, and cuts off a record torn by a crash.

        Raises:
            PlanError: another process samples these batches, or the folder can't be written.
        """
        own, shards = shard
        name, ending = ("journal", "") if shards == 1 else (f"journal-{own}-of-{shards}", f"{shards}.lock")
        with ExitStack() as stack:
            with alone(self.folder):
                locks = self.folder.glob(".journal*.lock")
                # shards of another number of shards, or a run without shards, would sample some of the same batches
                refuse_held(self.folder, [lock for lock in locks if lock.name.partition("-of-")[2] != ending])
                writer = stack.enter_context(hold(self.folder, name))
                if (self.folder / "plan.json").exists():
                    refuse_other(self.folder, _read_plan(self.folder), self.plan)
                else:
                    writer.save(self.folder / "plan.json", self.plan.model_dump_json(indent=1).encode())
            with told(self.folder):
                self._records(writer.path).cut_torn()
            yield writer

    @contextmanager
    def scoring(self) -> Iterator[Writer]:
        """Hold the scores for this process.

        Raises:
            PlanError: another process scores this run, or the folder can't be written.
        """
        with hold(self.folder, "scores") as writer:
            with told(self.folder):
                self.scores.cut_torn()
            yield writer

    def index(self) -> Index:
        """The batches that are journalled by now, by any shard.

        Raises:
            PlanError: a record is damaged; says which.
        """
        return Index([self._records(path) for path in self._journals()], self.plan.batch_count)

    def image(self, cell: Cell) -> Path:
        """The file of a cell's image."""
        return self.folder / self._name(cell)

    def results(self, guidance: float | None = None) -> Results:
        """The images of one guidance as a table; the latest record of an image or a score counts.

        Args:
            guidance: one of the plan's; need not be given where there is one.

        Raises:
            PlanError: some images are missing still; a recorded score that is not finite; or no guidance of the plan,
                which are then listed.
        """
        return results(self, guidance)

    def _journals(self) -> list[Path]:
        return sorted([*self.folder.glob("journal.jsonl"), *self.folder.glob("journal-*-of-*.jsonl")])

    def _records(self, path: Path) -> Records[BatchRecord]:
        return Records(path, BatchRecord, self._misfit_of)

    def _misfit_of(self, record: BatchRecord) -> str | None:
        columns = (record.sha256, record.path_kl, *record.paths.values())
        return self._misfit(record.batch, *map(len, columns))

    def _misfit(self, batch: int, *lengths: int) -> str | None:
        if batch >= self.plan.batch_count:
            return f"the plan has no batch {batch}"
        count = self.plan.batch(batch).count(self.plan)
        return None if set(lengths) == {count} else f"batch {batch} has {count} images"


def refuse_file(folder: Path) -> None:
    """Raise PlanError where a folder can't be, because a file is in its way."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if not place.is_dir():
        raise PlanError(f"{place} is a file, so {folder} can't be a run folder; give another --out")


def _refuse_search(folder: Path) -> None:
    if (folder / SEARCH).exists():
        raise PlanError(
            f"{folder} holds a search, which is no run: recommend, score, export and study take it, other commands its "
            f"rounds, such as {folder / 'rounds' / '001'}; a new run needs another --out"
        )


def _read_plan(folder: Path) -> Plan:
    try:
        return Plan.of(**json.loads((folder / "plan.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise PlanError(f"{folder / 'plan.json'} is damaged ({error}); restore it, or give another --out") from error


def refuse_other(folder: Path, written: T, given: T) -> None:
    """Refuse a folder of another plan, or of another comparison.

    Raises:
        PlanError: names what was changed.
    """
    changed = "; ".join(
        f"{key} was {reprlib.repr(old)}, now {reprlib.repr(new)}"
        for (key, old), (_, new) in zip(written, given, strict=True)
        if old != new
    )
    if changed:
        what = type(given).__name__.lower()
        raise PlanError(f"{folder} holds a run of another {what} ({changed}); give another --out")
