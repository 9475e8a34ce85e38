"""A run as one flat table, a row an image or a vote, for whatever reads parquet or csv."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from deradiff.errors import RunFolderError
from deradiff.results import Results
from deradiff.runs.cells import image_name
from deradiff.runs.results import journalled_images, load_results
from deradiff.runs.store import Store
from deradiff.runs.votes import cells_of_vote, read_votes
from deradiff.votes import Vote
from deradiff.writing import check_replaceable, replacing

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
ROWS = 10_000  # in memory as Python objects at once, and in a row group of parquet
STATISTICS = ("path_kl_to_anchor", "q", "implicit_reward", "log_weight", "ess", "ancestors")  # empty where unknown
COLUMNS: dict[str, pa.DataType] = {
    "model": pa.string(),
    "anchor": pa.string(),
    "prompt": pa.string(),
    "seed": pa.int64(),
    "guidance": pa.float64(),
    "lam": pa.float64(),
    "beta": pa.float64(),
    "image": pa.string(),
    "path_kl": pa.float64(),
    **dict.fromkeys(STATISTICS, pa.float64()),
}
VOTE_COLUMNS: dict[str, pa.DataType] = {
    "prompt": pa.string(),
    "seed": pa.int64(),
    "guidance": pa.float64(),
    "left": pa.float64(),
    "right": pa.float64(),
    "outcome": pa.string(),
    "better": pa.float64(),
    "rater": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
    "image_left": pa.string(),
    "image_right": pa.string(),
}


def export(store: Store, path: Path) -> int:
    """Write the images of a run that are there by now, with what they scored, as .parquet or .csv.

    The columns are model, anchor, prompt, seed, guidance (empty for the pipeline's default), lam, beta (the KL strength
    lam stands for; empty at 0, or where the anchor's isn't known), image (its file, from the run folder), path_kl
    (nats), what else is known of its trajectory (`deradiff.trajectory.Paths`), and one a reward.

    Args:
        store: of the run, which need not be finished.
        path: the file to write; its folders are made, and a file there is replaced once the new one is whole.

    Returns:
        How many images are in it.

    Raises:
        RunFolderError: another kind of file, one that can't be written, or a reward named like a column.
    """
    _check_kind(path)
    guidances = sorted({cell.guidance for cell in journalled_images(store)}, key=lambda guidance: guidance or 0.0)
    tables = {guidance: load_results(store, guidance, partly=True) for guidance in guidances}
    rewards = list(dict.fromkeys(name for table in tables.values() for name in (*table.scores, *table.unscored)))
    if clash := sorted(set(rewards) & set(COLUMNS)):
        raise RunFolderError(f"the reward {clash[0]!r} is named like a column of the table; rename it and score again")
    schema = pa.schema({**COLUMNS, **{reward: pa.float64() for reward in rewards}})
    return _write(path, schema, (row for guidance, table in tables.items() for row in _rows(store, guidance, table)))


def export_votes(store: Store, path: Path) -> int:
    """Write the votes on a run's images, oldest first, as .parquet or .csv.

    The columns are prompt, seed, guidance (empty for the pipeline's default), left and right (lams), outcome (left,
    right or tie), better (the lam that won; empty for a tie), rater, time (UTC), and image_left and image_right (their
    files, from the run folder).

    Args:
        store: of the run.
        path: the file to write; its folders are made, and a file there is replaced once the new one is whole.

    Returns:
        How many votes are in it.

    Raises:
        RunFolderError: another kind of file, one that can't be written, or a damaged line of votes.
    """
    _check_kind(path)
    return _write(path, pa.schema(VOTE_COLUMNS), (_vote_row(store, vote) for vote in read_votes(store)))


def _vote_row(store: Store, vote: Vote) -> dict[str, Any]:
    left, right = (image_name(store.keys(cell)) for cell in cells_of_vote(vote))
    better = {"left": vote.left, "right": vote.right, "tie": None}[vote.outcome]
    return {**vote.model_dump(), "better": better, "image_left": left, "image_right": right}


_WRITERS = {".parquet": pq.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}


def _check_kind(path: Path) -> None:
    if path.suffix.lower() not in _WRITERS:
        raise RunFolderError(f"can't export to {path}: expected a file that ends in .parquet or .csv")
    check_replaceable(path)


def _write(path: Path, schema: Any, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows into a file, whole or not at all; returns how many."""
    suffix, count = path.suffix.lower(), 0
    if suffix == ".csv":  # rewards are columns, and their names are other people's as well
        schema = pa.schema([pa.field(_inert(column.name), column.type) for column in schema])
        rows = ({_inert(name): _inert(value) for name, value in row.items()} for row in rows)
    # an open file: Arrow takes no path that isn't UTF-8
    with replacing(path) as part, part.open("wb") as file, _WRITERS[suffix](file, schema) as writer:
        while chunk := list(islice(rows, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
            count += len(chunk)
    return count


def _inert(value: Any) -> Any:
    """A value that no spreadsheet runs as a formula: texts that begin like one get an apostrophe, numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _rows(store: Store, guidance: float | None, table: Results) -> Iterator[dict[str, Any]]:
    recipe = store.recipe
    columns = {name: table.paths[name] for name in STATISTICS if name in table.paths} | dict(table.scores)
    if table.path_kl is not None:
        columns["path_kl"] = table.path_kl
    for index in np.ndindex(table.shape):
        if not table.images[index]:
            continue
        lam = table.lams[index[2]]
        yield {
            "model": recipe.model,
            "anchor": recipe.anchor,
            "prompt": table.prompts[index[0]],
            "seed": table.seeds[index[1]],
            "guidance": guidance,
            "lam": lam,
            "beta": recipe.anchor_beta / lam if recipe.anchor_beta is not None and lam > 0 else None,
            "image": Path(table.images[index]).relative_to(store.folder).as_posix(),
            **{name: None if np.isnan(column[index]) else float(column[index]) for name, column in columns.items()},
        }
