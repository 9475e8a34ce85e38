"""A run folder: ``run.json``, ``requests.jsonl``, ``images/`` and append-only journals, from which all is rebuilt.

An image is written before the line that names it, so that what a journal says exists, exists. Each shard writes a
journal of its own; reading puts them together, and of several lines about one cell the last counts. Nothing is followed
out of the folder.
"""

import json
import os
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from deradiff.errors import RunFolderError
from deradiff.reading import check_inside, exists, parse_model, read_errors, read_lines, read_object, regular_files
from deradiff.runs.cells import WHOLE, Cell, Keys, Request, Shard, image_name
from deradiff.runs.index import Index, first_bytes
from deradiff.runs.recipe import Recipe, check_same_recipe
from deradiff.runs.records import CellsRecord, ScoreRecord, keys_of, parse_record
from deradiff.runs.writer import Writer, holding, setup_lock
from deradiff.validation import describe_errors
from deradiff.writing import append_line, cut_torn_line, is_locked, write_errors

SCHEMA = 1
RUN = "run.json"
_IMAGE = re.compile(r"[0-9a-f]{32}\.png")


@dataclass
class Store:
    """One run on disk.

    Attributes:
        folder: the run folder.
        recipe: what all its cells share.
        keys: of its cells.
    """

    folder: Path
    recipe: Recipe
    keys: Keys = field(init=False)

    def __post_init__(self) -> None:
        self.keys = Keys(self.recipe.identity)

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a folder holds a run."""
        return exists(folder / RUN, "the run file")

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """The run in a folder.

        Raises:
            RunFolderError: no run there, one of a newer version, or a damaged one.
        """
        if not cls.exists(folder):
            raise RunFolderError(f"{folder} is no run folder: it has no {RUN}; make one with deradiff sweep")
        content = read_object(folder / RUN, "the run file", inside=folder)
        schema, settings = content.get("schema"), content.get("recipe")
        if schema != SCHEMA:
            newer = isinstance(schema, int) and schema > SCHEMA
            remedy = "install a newer deradiff" if newer else "restore it, or give another --out"
            raise RunFolderError(f"{folder / RUN} has schema {schema!r}; this version reads {SCHEMA}: {remedy}")
        try:
            return cls(folder, Recipe.model_validate(settings))
        except ValidationError as error:
            raise RunFolderError(
                f"{folder / RUN} is damaged ({describe_errors(error, Recipe.model_fields)}); restore it, or give "
                "another --out"
            ) from error

    @classmethod
    def at(cls, folder: Path, recipe: Recipe) -> "Store":
        """The run of a recipe in a folder, which need not exist; nothing is written before the first image is.

        Raises:
            RunFolderError: the folder holds a run of another recipe, a damaged one, or can't be a folder.
        """
        check_folder(folder)
        if cls.exists(folder):
            check_same_recipe(folder, cls.open(folder).recipe, recipe)
        elif cls(folder, recipe).journals():
            raise RunFolderError(f"{folder} has a journal but no {RUN} to read it by; give another --out")
        return cls(folder, recipe)

    def run_json(self) -> bytes:
        """The content of ``run.json``."""
        content = {"schema": SCHEMA, "recipe": self.recipe.model_dump(mode="json")}
        return json.dumps(content, indent=1).encode() + b"\n"

    def located(self, name: str) -> str:
        """Where a model or anchor named in the recipe is: relative folders are meant from the run folder."""
        beside = os.path.normpath(os.path.join(os.path.realpath(self.folder), name))  # the folder need not exist yet
        return beside if name and not os.path.isabs(name) and os.path.exists(beside) else name

    def image(self, cell: Cell) -> Path:
        """The file of a cell's image."""
        return self.folder / image_name(self.keys(cell))

    def requests(self) -> list[Request]:
        """All that was asked for so far, in order.

        Raises:
            RunFolderError: a line is damaged.
        """
        path = self.folder / "requests.jsonl"
        if not exists(path, "the requests"):
            return []
        check_inside(self.folder, path)
        return [
            parse_model(Request, line, f"{path}, line {number},", "delete that line")
            for number, (_, line) in enumerate(read_lines(path), start=1)
        ]

    def journals(self) -> list[Path]:
        """The journals of cells."""
        return regular_files(
            self.folder, lambda name: name == "cells.jsonl" or (name.startswith("cells-") and name.endswith(".jsonl"))
        )

    def index(self) -> Index:
        """The cells that are journalled by now.

        Raises:
            RunFolderError: a line is damaged; says which.
        """
        hashes = bytearray()
        for path in self.journals():
            for number, (_, line) in enumerate(read_lines(path), start=1):
                hashes += first_bytes(keys_of(line, f"{path}, line {number}"))
        return Index.of(hashes)

    def records(self) -> Iterator[CellsRecord]:
        """Every line of every journal, oldest first in each.

        Raises:
            RunFolderError: a line is damaged, or of another recipe.
        """
        for path in self.journals():
            for number, (_, line) in enumerate(read_lines(path), start=1):
                where = f"{path}, line {number}"
                record = parse_record(CellsRecord, line, where)
                if any(self.keys(cell) != key for cell, key in zip(record.values(), record.keys, strict=True)):
                    raise RunFolderError(f"{where}, is of a run of another recipe; delete that line")
                yield record

    def scores(self) -> Iterator[ScoreRecord]:
        """Every line of scores, oldest first.

        Raises:
            RunFolderError: a line is damaged.
        """
        path = self.folder / "rewards.jsonl"
        if not exists(path, "the scores"):
            return
        check_inside(self.folder, path)
        for number, (_, line) in enumerate(read_lines(path), start=1):
            yield parse_record(ScoreRecord, line, f"{path}, line {number}")

    def images_on_disk(self) -> Index:
        """The cells that have an image file.

        Raises:
            RunFolderError: a folder of images is a link out of the run folder.
        """
        home, hashes = self.folder / "images", bytearray()
        with read_errors(home, "the folder"):
            subfolders = sorted(home.iterdir()) if os.path.isdir(home) else []
        for subfolder in subfolders:
            check_inside(self.folder, subfolder)
            if os.path.isdir(subfolder):
                with read_errors(subfolder, "the folder"), os.scandir(subfolder) as entries:
                    files = [entry for entry in entries if _IMAGE.fullmatch(entry.name)]
                for entry in files:
                    if entry.is_symlink():
                        check_inside(self.folder, Path(entry.path))
                hashes += first_bytes([entry.name for entry in files])
        return Index.of(hashes)

    @contextmanager
    def writing(self, shard: Shard = WHOLE) -> Generator[Writer]:
        """Hold the journal of shard k of n for this process: notes the recipe, cuts off a line torn by a crash.

        Raises:
            RunFolderError: another process samples these cells, or the folder can't be written.
        """
        index, shards = shard
        name, ending = ("cells", "") if shards == 1 else (f"cells-{index + 1}-of-{shards}", f"-of-{shards}.lock")
        with ExitStack() as stack:
            with setup_lock(self.folder):
                # shards of another number of shards, or a run without shards, would sample some of the same cells
                for lock in self.folder.glob(".cells*.lock"):
                    if (not ending or not lock.name.endswith(ending)) and is_locked(lock):
                        raise RunFolderError(
                            f"another process writes to {self.folder}; wait for it, or give another --out"
                        )
                writer = stack.enter_context(holding(self.folder, name))
                written = Store.open(self.folder).recipe if self.exists(self.folder) else None
                if written is not None:
                    check_same_recipe(self.folder, written, self.recipe)
                if written != self.recipe:  # such as the model's new place
                    writer.save(self.folder / RUN, self.run_json())
            yield writer

    @contextmanager
    def scoring(self) -> Generator[Writer]:
        """Hold the scores for this process.

        Raises:
            RunFolderError: another process scores this run, or the folder can't be written.
        """
        with holding(self.folder, "rewards") as writer:
            yield writer

    def add_request(self, request: Request) -> None:
        """Note what is asked for, unless it was asked for already.

        Raises:
            RunFolderError: it can't be written.
        """
        with setup_lock(self.folder), write_errors(self.folder):
            path = self.folder / "requests.jsonl"
            check_inside(self.folder, path)
            cut_torn_line(path)
            if request not in self.requests():
                append_line(path, request.model_dump_json().encode())


def check_folder(folder: Path) -> None:
    """Raise RunFolderError where a folder can't be, because a file is in its way."""
    with read_errors(folder, "the folder"):
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(existing):
        raise RunFolderError(f"{existing} is a file, so {folder} can't be a run folder; give another --out")
