"""A run as one flat table, a row an image, for whatever reads parquet or csv."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deradiff.errors import PlanError
from deradiff.files import replacing
from deradiff.sweep.index import Index
from deradiff.sweep.journal import Journal

ROWS = 10_000  # in memory at once, and in a row group of parquet
PATHS = ("path_kl_to_anchor", "q", "implicit_reward", "log_weight", "ess", "distinct")  # empty where unknown
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
    **dict.fromkeys(PATHS, pa.float64()),
}


def export(journals: Sequence[Journal], path: Path, folder: Path) -> int:
    """Write the images of runs that are there by now, with what they scored, as .parquet or .csv.

    The columns are model, anchor, prompt, seed, guidance (empty for the pipeline's default), lam, beta (the KL strength
    lam stands for; empty at 0, or where the anchor's isn't known), image (its file, from ``folder``), path_kl (nats),
    what else is known of its path (`deradiff.paths.Paths`), and one a reward.

    Args:
        journals: of the runs, which need not be finished.
        path: the file to write; its folders are made, and a file there is replaced once the new one is whole.
        folder: that all runs are in.

    Returns:
        How many images are in it.

    Raises:
        PlanError: another kind of file, one that can't be written, or a reward named like a column.
    """
    kinds = {".parquet": pq.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
    if path.suffix not in kinds or path.is_dir():
        raise PlanError(f"can't export to {path}: expected a file that ends in .parquet or .csv")
    runs = [(journal, index := journal.index(), _score_places(journal, index)) for journal in journals]
    rewards = list(dict.fromkeys(reward for _, _, places in runs for reward in places))
    if clash := sorted(set(rewards) & set(COLUMNS)):
        raise PlanError(f"the reward {clash[0]!r} is named like a column of the table; rename it and score again")
    schema = pa.schema({**COLUMNS, **{reward: pa.float64() for reward in rewards}})
    rows, count = chain.from_iterable(_rows(*own, folder) for own in runs), 0
    with replacing(path) as part, kinds[path.suffix](part, schema) as writer:
        while chunk := list(islice(rows, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
            count += len(chunk)
    return count


def _rows(
    journal: Journal, index: Index, places: dict[str, NDArray[np.int64]], folder: Path
) -> Iterator[dict[str, Any]]:
    plan = journal.plan
    for batch in plan.batches():
        record = index.get(batch.index)
        if record is None:
            continue
        starts = {reward: int(place[batch.index]) for reward, place in places.items()}
        scores = {reward: journal.scores.at(start).scores for reward, start in starts.items() if start >= 0}
        for number, cell in enumerate(batch.cells(plan)):
            image, lam = journal.image(cell), plan.lams[cell.lam]
            if image.is_file():
                yield {
                    "model": plan.model,
                    "anchor": plan.anchor,
                    "prompt": plan.prompts[cell.prompt],
                    "seed": plan.seeds[cell.seed],
                    "guidance": plan.guidances[cell.guidance],
                    "lam": lam,
                    "beta": plan.anchor_beta / lam if plan.anchor_beta is not None and lam > 0 else None,
                    "image": image.relative_to(folder).as_posix(),
                    "path_kl": record.path_kl[number],
                    **{name: record.paths[name][number] for name in PATHS if name in record.paths},
                    **{reward: values[number] for reward, values in scores.items()},
                }


def _score_places(journal: Journal, index: Index) -> dict[str, NDArray[np.int64]]:
    """For each reward and batch where its latest scores stand, -1 where its images as they are now have none."""
    places: dict[str, NDArray[np.int64]] = {}
    for start, scored in journal.scores:
        record = index.get(scored.batch)
        if record is not None and record.edition == scored.edition:
            if scored.reward not in places:
                places[scored.reward] = np.full(journal.plan.batch_count, -1, np.int64)
            places[scored.reward][scored.batch] = start
    return places
