"""A run folder: ``plan.json``, ``images/`` and an append-only ``journal.jsonl`` from which everything is rebuilt.

An image is written before the record that names it, so that what the journal says exists, exists.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from deradiff.errors import PlanError
from deradiff.results import Results
from deradiff.sweep.plan import Cell, Plan


class Journal:
    """The records of one run; nothing is written before the first image is.

    Raises:
        PlanError: the folder holds a run of another plan, a damaged one, or can't be a folder.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.path = folder / "journal.jsonl"
        place = next(p for p in (folder, *folder.parents) if p.exists())
        if not place.is_dir():
            raise PlanError(f"{place} is a file, so {folder} can't be a run folder; give another --out")
        if (folder / "plan.json").exists():
            _refuse_other(folder, _read_plan(folder), plan)
        elif self.path.exists():
            raise PlanError(f"{folder} has a journal but no plan.json to read it by; give another --out")

    @classmethod
    def open(cls, folder: Path) -> "Journal":
        """The journal of an existing run.

        Raises:
            PlanError: no run there, or a damaged one.
        """
        if not (folder / "plan.json").is_file():
            raise PlanError(f"{folder} is no run folder: it has no plan.json; make one with deradiff sweep")
        return cls(folder, _read_plan(folder))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for this process: makes it, notes the plan, and cuts off a record torn by a crash.

        Raises:
            PlanError: another process is writing there, or the folder can't be made.
        """
        with _told(self.folder):
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0).acquire()
        with lock:
            with _told(self.folder):
                if not (self.folder / "plan.json").exists():
                    _write_whole(self.folder / "plan.json", self.plan.model_dump_json(indent=1).encode())
                _drop_torn_record(self.path)
            yield

    def records(self) -> Iterator[dict[str, Any]]:
        """Every whole record, oldest first.

        Raises:
            PlanError: a record is damaged; says which.
        """
        if not self.path.exists():
            return
        with self.path.open() as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith("\n"):  # the last one may be torn
                    yield _parse(self.path, number, line)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records, on disk before this returns.

        Raises:
            PlanError: the disk is full, or can't be written.
        """
        with _told(self.folder), self.path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> set[Cell]:
        """The cells whose image is on disk and whole."""
        made = (record for record in self.records() if record["kind"] == "image")
        return {Cell(*record["cell"]) for record in made if _is_whole(self.folder / record["image"])}

    def save_image(self, cell: Cell, image: Image.Image) -> str:
        """Write a cell's image whole or not at all; returns its path within the folder.

        Raises:
            PlanError: the disk is full, or can't be written.
        """
        name = f"images/{self.plan.image_name(cell)}"
        content = io.BytesIO()
        image.save(content, format="PNG")
        with _told(self.folder):
            _write_whole(self.folder / name, content.getvalue())
        return name

    def results(self) -> Results:
        """The run as a table; the latest record of an image or a score counts.

        Raises:
            PlanError: some images are missing still.
        """
        plan, shape = self.plan, (len(self.plan.prompts), len(self.plan.seeds), len(self.plan.lams))
        images, path_kl = np.empty(shape, dtype=object), np.full(shape, np.nan)
        scores: dict[str, np.ndarray[Any, Any]] = {}
        for record in self.records():
            place = tuple(record["cell"])
            if record["kind"] == "image":
                images[place] = str(self.folder / record["image"])
                path_kl[place] = np.nan if record["path_kl"] is None else record["path_kl"]
            else:
                scores.setdefault(record["reward"], np.full(shape, np.nan))[place] = record["score"]
        missing = sum(image is None for image in images.flat)
        if missing:
            raise PlanError(f"{self.folder} lacks {missing} of {images.size} images; run the same deradiff sweep again")
        return Results(
            prompts=plan.prompts,
            seeds=plan.seeds,
            lams=plan.lams,
            scores=scores,
            images=images,
            path_kl=path_kl if np.isfinite(path_kl).all() else None,
            anchor_beta=plan.anchor_beta,
            details=_details(plan),
        )


def _details(plan: Plan) -> dict[str, str]:
    size = "the pipeline's default" if plan.height is None and plan.width is None else f"{plan.height} x {plan.width}"
    return {
        "Model": plan.model,
        "Anchor": plan.anchor,
        "Scheduler": plan.scheduler or "the pipeline's own",
        "Steps": str(plan.steps),
        "Guidance": "the pipeline's default" if plan.guidance is None else f"{plan.guidance:g}",
        "Size": size,
    }


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Say what can't be written and that nothing is lost."""
    try:
        yield
    except Timeout as error:
        raise PlanError(f"another process writes to {folder}; wait for it, or give another --out") from error
    except OSError as error:
        raise PlanError(
            f"can't write to {folder} ({error.strerror or error}); what is there is kept: make room, and run the "
            "same command again"
        ) from error


def _read_plan(folder: Path) -> Plan:
    try:
        return Plan.of(**json.loads((folder / "plan.json").read_text()))
    except (ValueError, TypeError) as error:
        raise PlanError(f"{folder / 'plan.json'} is damaged ({error}); restore it, or give another --out") from error


def _refuse_other(folder: Path, written: Plan, plan: Plan) -> None:
    old, new = written.model_dump(), plan.model_dump()
    changed = "; ".join(f"{key} was {old[key]!r}, now {new[key]!r}" for key in new if old[key] != new[key])
    if changed:
        raise PlanError(f"{folder} holds a run of another plan ({changed}); give another --out")


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise PlanError(f"{path}, line {number}, is damaged ({error}); delete it and run the sweep again") from error


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):  # Pillow raises SyntaxError on a broken PNG
        return False
    return True


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def _drop_torn_record(path: Path) -> None:
    """A crash can tear only the last record: cut it off, so that the next one starts on a line of its own."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            _write_whole(path, content[: content.rfind(b"\n") + 1])
