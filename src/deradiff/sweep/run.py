"""Running a plan: every missing batch is sampled, saved and journalled."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from deradiff.realignment import realign
from deradiff.sweep.encode import encoding_once
from deradiff.sweep.environment import environment, note_environment
from deradiff.sweep.journal import Journal
from deradiff.sweep.models import decoding_one_by_one, set_scheduler
from deradiff.sweep.records import BatchRecord
from deradiff.sweep.sample import Sampler
from deradiff.sweep.writer import Writer

Progress = Callable[[int], None]  # told how many more images are done

_THREADS = 4  # compressing and hashing release the GIL; more would take cores from the networks


def run(
    journal: Journal,
    pipe: Any,
    anchor: str,
    progress: Progress = lambda count: None,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Sample every image of a shard that is not on disk yet, or not as it was journalled.

    Args:
        journal: of the run; what it holds already is checked and not made again.
        pipe: the reference pipeline, loaded; left as it was.
        anchor: folder, hub id or adapter name of the aligned model.
        progress: told of images as they are done, those found on disk first.
        shard: k of n, from 0: this process samples every n-th batch, others may sample the rest into the same folder.

    Raises:
        PlanError: a setting the pipeline doesn't take, a folder of another plan or other models, one that can't be
            written, or in which another process samples the same batches.
    """
    plan, mode = journal.plan, "weights" if journal.plan.mode == "weights" else "auto"
    batches = plan.batches(shard)
    with (
        _scheduler(pipe, plan.scheduler),
        encoding_once(pipe),
        decoding_one_by_one(pipe),
        realign(pipe, anchor, 0.0, component=plan.component, mode=mode) as handle,
        journal.writing(shard) as writer,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        note_environment(writer, environment(pipe, handle.components, anchor))
        index, sampler = journal.index(), Sampler(pipe, handle, plan)
        for batch in batches:
            files, record = [journal.image(cell) for cell in batch.cells(plan)], index.get(batch.index)
            if record is None or not all(pool.map(_is_whole, files, record.sha256)):
                sampled = sampler.sample(batch, record and record.info)
                made = BatchRecord(
                    batch=batch.index,
                    sha256=_save(writer, pool, files, sampled.images),
                    path_kl=sampled.path_kl,
                    paths=sampled.paths,
                    info=sampled.info,
                )
                record = _journalled(writer, record, made)
            sampler.learn(record.info)
            progress(len(files))


def _journalled(writer: Writer, old: BatchRecord | None, new: BatchRecord) -> BatchRecord:
    """Images that came out as they were before need no second record."""
    if old is not None:
        if old.sha256 == new.sha256:
            return old
        new = new.model_copy(update={"edition": old.edition + 1})
    writer.append(new)
    return new


def _save(writer: Writer, pool: Executor, files: list[Path], images: list[Image.Image]) -> list[str]:
    def save(file: Path, image: Image.Image) -> str:
        content = io.BytesIO()
        image.save(content, format="PNG")
        return writer.save(file, content.getvalue())

    return list(pool.map(save, files, images))


def _is_whole(file: Path, digest: str) -> bool:
    try:
        content = file.read_bytes()
    except OSError:  # what can't be read is made again
        return False
    return sha256(content).hexdigest() == digest


@contextmanager
def _scheduler(pipe: Any, name: str | None) -> Iterator[None]:
    before = pipe.scheduler
    set_scheduler(pipe, name)
    try:
        yield
    finally:
        pipe.scheduler = before
