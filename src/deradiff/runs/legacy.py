"""Runs of version 0.1, whose one plan was frozen in ``plan.json``: read once into a run that can grow.

Images keep their files and get a second name (a hard link, or a copy); nothing that is there is changed.
"""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from deradiff.errors import ConfigError, RunFolderError
from deradiff.io import (
    check_inside,
    exists,
    parse_object,
    read_lines,
    read_object,
    read_whole,
    write_errors,
    write_whole,
)
from deradiff.results import RewardInfo
from deradiff.runs.cells import Cell, Request, image_name
from deradiff.runs.fingerprint import with_hashes
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo, ScoreRecord, SpotCheck
from deradiff.runs.store import RUN, Store, setup_lock

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
    try:
        request = Request(**{name: fields.pop(name) for name in ("prompts", "seeds", "lams", "guidances")})
        recipe = with_hashes(Recipe(**fields))
    except (KeyError, ConfigError) as error:
        raise RunFolderError(f"{folder / _PLAN} is damaged ({error}); restore it, or give another --out") from error
    store, files = Store(folder, recipe), _files_by_hash(folder)
    records = [_record(store, cells, line) for cells, line in _cell_lines(folder, plan, request)]
    digests = {key: digest for record in records for key, digest in zip(record.keys, record.sha256, strict=True)}
    scores = [_score_record(store, cells, line, digests) for cells, line in _score_lines(folder, plan, request)]
    with setup_lock(folder):
        for key, digest in digests.items():
            if digest in files:
                _link(folder, files[digest], folder / image_name(key))
        _write_lines(folder / "cells.jsonl", records)
        _write_lines(folder / "rewards.jsonl", [record for record in scores if record is not None])
        _write_lines(folder / "requests.jsonl", [request])
        write_whole(folder / RUN, store.run_json())  # last: a folder without it is read anew


def _write_lines(path: Path, records: Sequence[BaseModel]) -> None:
    write_whole(path, b"".join(record.model_dump_json().encode() + b"\n" for record in records))


def _cell_lines(folder: Path, plan: dict[str, Any], request: Request) -> Iterator[tuple[list[Cell], dict[str, Any]]]:
    """The latest line of each batch, and its cells."""
    latest: dict[int, dict[str, Any]] = {}
    for path in sorted([*folder.glob("journal.jsonl"), *folder.glob("journal-*-of-*.jsonl")]):
        latest |= {line["batch"]: line for line in _lines(path, ("batch", "sha256"))}
    for batch, line in sorted(latest.items()):
        cells = _cells_of_batch(plan, request, batch)
        if len(cells) != len(line["sha256"]):
            raise RunFolderError(f"batch {batch} of {folder} has {len(line['sha256'])} images, expected {len(cells)}")
        yield cells, line


def _score_lines(folder: Path, plan: dict[str, Any], request: Request) -> Iterator[tuple[list[Cell], dict[str, Any]]]:
    """The latest scores of each batch by each reward, and its cells."""
    latest = {(line["reward"], line["batch"]): line for line in _lines(folder / "scores.jsonl", ("batch", "reward"))}
    for (_, batch), line in latest.items():
        yield _cells_of_batch(plan, request, batch), line


def _lines(path: Path, expected: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    if not exists(path, "the journal"):
        return
    check_inside(path.parent, path)
    for number, (_, line) in enumerate(read_lines(path), start=1):
        fields = parse_object(line, f"{path}, line {number},")
        if any(name not in fields for name in expected):
            raise RunFolderError(f"{path}, line {number}, is damaged (it lacks {expected}); delete that line")
        yield fields


def _record(store: Store, cells: list[Cell], line: dict[str, Any]) -> CellsRecord:
    """A line of version 0.1 as a record of today."""
    info, paths = line.get("info", {}), line.get("paths", {})
    checks = [
        SpotCheck(index=number, error=check["error"], nfe=check["calls"])
        for number, check in enumerate(info.get("checks", ()))
    ]
    sampling = SamplingInfo(
        nfe=info.get("calls", 0),
        nfe_published=info.get("calls_published", 0),
        lams=tuple(sorted({cell.lam for cell in cells})) if store.recipe.depends_on_lams else (),
        tolerance=info.get("tolerance"),
        spot_checks=tuple(checks),
    )
    statistics = {new: paths[old] for old, new in _STATISTICS.items() if old in paths}
    return CellsRecord.of(cells, [store.keys(cell) for cell in cells], line["sha256"], statistics, sampling)


def _score_record(store: Store, cells: list[Cell], line: dict[str, Any], digests: dict[str, str]) -> ScoreRecord | None:
    """A line of scores of version 0.1 as a record of today; None where its images aren't journalled."""
    keys = [store.keys(cell) for cell in cells]
    if any(key not in digests for key in keys):
        return None
    info = {name: value for name, value in line.get("info", {}).items() if name in RewardInfo.__dataclass_fields__}
    return ScoreRecord(
        reward=line["reward"],
        info=RewardInfo(**info),
        keys=tuple(keys),
        sha256=tuple(digests[key] for key in keys),
        scores=line["scores"],
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


def _cells_of_batch(plan: dict[str, Any], request: Request, index: int) -> list[Cell]:
    """Version 0.1 dealt rectangles of prompts and seeds at every lam: guidances turned fastest, then seeds."""
    rows = len(request.lams) * plan.get("particles", 1)
    batch_size, adaptive = plan.get("batch_size", 8), plan.get("mode") == "adaptive"
    pairs = max(1, batch_size // 2) if adaptive else math.ceil(batch_size / rows)
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
