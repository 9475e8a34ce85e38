"""Runs of version 0.1, whose one plan was frozen in ``plan.json``: read once into a run that can grow.

Images keep their files and get a second name (a hard link, or a copy); nothing that is there is changed.
"""

import math
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from deradiff.errors import RunFolderError
from deradiff.reading import check_inside, exists, parse_model, read_lines, read_object, read_whole
from deradiff.results import RewardInfo
from deradiff.runs.cells import Cell, Request, image_name
from deradiff.runs.fingerprint import with_hashes
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo, ScoreRecord, SpotCheck
from deradiff.runs.store import RUN, Store
from deradiff.runs.writer import setup_lock
from deradiff.validation import describe_errors
from deradiff.writing import write_errors, write_whole

_PLAN = "plan.json"
_RENAMED = {"mode": "policy", "quality": "target_error"}
_STATISTICS = {
    "q": "q",
    "implicit_reward": "implicit_reward",
    "log_weight": "log_weight",
    "ess": "ess",
    "distinct": "ancestors",
}


def open_run_folder(folder: Path) -> Store:
    """The run in a folder, also one of version 0.1, which is read into a new one beside its old files.

    Raises:
        RunFolderError: no run there, a damaged one, one of a newer version, or a search of version 0.1.
    """
    if not Store.exists(folder):
        if is_legacy(folder):
            _migrate(folder)
        elif os.path.isdir(folder / "rounds") and os.path.isfile(folder / "search.json"):
            raise RunFolderError(
                f"{folder} holds a search of version 0.1, whose rounds are runs: put them together with "
                f"deradiff merge {folder}/rounds/* --out NEW, and search there"
            )
    return Store.open(folder)


def is_legacy(folder: Path) -> bool:
    """Whether a folder holds a run of version 0.1 that wasn't read yet."""
    return exists(folder / _PLAN, "the plan") and not Store.exists(folder)


def _migrate(folder: Path) -> None:
    plan = read_object(folder / _PLAN, "the plan of a run of version 0.1,", inside=folder)
    fields = {_RENAMED.get(name, name): value for name, value in plan.items()}
    asked = {name: fields.pop(name) for name in ("prompts", "seeds", "lams", "guidances") if name in fields}
    with _damage(f"{folder / _PLAN}", "restore it, or give another --out"):
        request, recipe = Request.model_validate(asked), with_hashes(Recipe.model_validate(fields))
    store, files = Store(folder, recipe), _files_by_hash(folder)
    records = [_record(store, cells, batch) for cells, batch in _batches(folder, recipe, request)]
    digests = {key: digest for record in records for key, digest in zip(record.keys, record.sha256, strict=True)}
    scores = [_score_record(store, cells, batch, digests) for cells, batch in _scored_batches(folder, recipe, request)]
    with setup_lock(folder):
        for key, digest in digests.items():
            if digest in files:
                _link(folder, files[digest], folder / image_name(key))
        _write_lines(folder / "cells.jsonl", records)
        _write_lines(folder / "rewards.jsonl", [record for record in scores if record is not None])
        _write_lines(folder / "requests.jsonl", [request])
        write_whole(folder / RUN, store.run_json())  # last: a folder without it is read anew


class _Check(BaseModel):
    error: float = Field(ge=0)
    calls: int = Field(ge=0)


class _Info(BaseModel):
    calls: int = Field(default=0, ge=0)
    calls_published: int = Field(default=0, ge=0)
    tolerance: float | None = None
    checks: tuple[_Check, ...] = ()


class _Batch(BaseModel):
    """A line of ``journal.jsonl``: the images of one batch, in the order of its cells."""

    batch: int = Field(ge=0)
    sha256: tuple[str, ...] = Field(min_length=1)
    paths: dict[str, tuple[float | None, ...]] = {}
    info: _Info = _Info()


class _ScoredBatch(BaseModel):
    """A line of ``scores.jsonl``: the scores of one batch by one reward."""

    batch: int = Field(ge=0)
    reward: str
    scores: tuple[float | None, ...]
    info: dict[str, Any] = {}


L = TypeVar("L", _Batch, _ScoredBatch)


@contextmanager
def _damage(where: str, remedy: str) -> Generator[None]:
    """Say what of a file of version 0.1 can't be used.

    Raises:
        RunFolderError: for settings and records that pydantic refuses.
    """
    try:
        yield
    except ValidationError as error:
        raise RunFolderError(f"{where} is damaged ({describe_errors(error)}); {remedy}") from error


def _write_lines(path: Path, records: Sequence[BaseModel]) -> None:
    write_whole(path, b"".join(record.model_dump_json().encode() + b"\n" for record in records))


def _batches(folder: Path, recipe: Recipe, request: Request) -> Iterator[tuple[list[Cell], _Batch]]:
    """The latest line of each batch, and its cells."""
    latest: dict[int, _Batch] = {}
    for path in sorted([*folder.glob("journal.jsonl"), *folder.glob("journal-*-of-*.jsonl")]):
        latest |= {line.batch: line for line in _lines(path, _Batch)}
    for number, batch in sorted(latest.items()):
        cells = _cells_of_batch(recipe, request, number)
        if len(cells) != len(batch.sha256):
            raise RunFolderError(f"batch {number} of {folder} has {len(batch.sha256)} images, expected {len(cells)}")
        yield cells, batch


def _scored_batches(folder: Path, recipe: Recipe, request: Request) -> Iterator[tuple[list[Cell], _ScoredBatch]]:
    """The latest scores of each batch by each reward, and its cells."""
    latest = {(line.reward, line.batch): line for line in _lines(folder / "scores.jsonl", _ScoredBatch)}
    for (_, number), batch in latest.items():
        yield _cells_of_batch(recipe, request, number), batch


def _lines(path: Path, kind: type[L]) -> Iterator[L]:
    if not exists(path, "the journal"):
        return
    check_inside(path.parent, path)
    for number, (_, line) in enumerate(read_lines(path), start=1):
        yield parse_model(kind, line, f"{path}, line {number},", "delete that line")


def _record(store: Store, cells: list[Cell], batch: _Batch) -> CellsRecord:
    """A line of version 0.1 as a record of today."""
    checks = [
        SpotCheck(index=number, error=check.error, nfe=check.calls) for number, check in enumerate(batch.info.checks)
    ]
    statistics = {new: list(batch.paths[old]) for old, new in _STATISTICS.items() if old in batch.paths}
    with _damage(f"batch {batch.batch} of {store.folder}", "delete its line"):
        sampling = SamplingInfo(
            nfe=batch.info.calls,
            nfe_published=batch.info.calls_published,
            lams=tuple(sorted({cell.lam for cell in cells})) if store.recipe.depends_on_lams else (),
            tolerance=batch.info.tolerance,
            spot_checks=tuple(checks),
        )
        return CellsRecord.of(cells, [store.keys(cell) for cell in cells], list(batch.sha256), statistics, sampling)


def _score_record(store: Store, cells: list[Cell], batch: _ScoredBatch, digests: dict[str, str]) -> ScoreRecord | None:
    """A line of scores of version 0.1 as a record of today; None where its images aren't journalled."""
    keys = [store.keys(cell) for cell in cells]
    if any(key not in digests for key in keys):
        return None
    info = {name: value for name, value in batch.info.items() if name in RewardInfo.__dataclass_fields__}
    with _damage(f"the scores of batch {batch.batch} of {store.folder}", "delete its line"):
        return ScoreRecord.model_validate(
            {
                "reward": batch.reward,
                "info": info,
                "keys": keys,
                "sha256": [digests[key] for key in keys],
                "scores": batch.scores,
            }
        )


def _link(folder: Path, old: Path, new: Path) -> None:
    with write_errors(folder):
        new.parent.mkdir(parents=True, exist_ok=True)
        if not new.exists():
            try:
                os.link(old, new)
            except OSError:  # a file system without hard links
                shutil.copyfile(old, new)


def _files_by_hash(folder: Path) -> dict[str, Path]:
    files = sorted((folder / "images").glob("*/*.png"))
    return {sha256(read_whole(path, "the image", inside=folder)).hexdigest(): path for path in files}


def _cells_of_batch(recipe: Recipe, request: Request, index: int) -> list[Cell]:
    """Version 0.1 dealt rectangles of prompts and seeds at every lam: guidances turned fastest, then seeds."""
    rows, adaptive = len(request.lams) * recipe.particles, recipe.policy == "adaptive"
    pairs = max(1, recipe.batch_size // 2) if adaptive else math.ceil(recipe.batch_size / rows)
    seeds = min(pairs, len(request.seeds))
    prompts = max(1, pairs // len(request.seeds))
    block, guidance = divmod(index, len(request.guidances))
    row, column = divmod(block, math.ceil(len(request.seeds) / seeds))
    return [
        Cell(prompt, seed, request.guidances[guidance], lam)
        for prompt in request.prompts[row * prompts : (row + 1) * prompts]
        for seed in request.seeds[column * seeds : (column + 1) * seeds]
        for lam in request.lams
    ]
