"""How far one driver reaches: a simulated sweep on Ray workers that sleep instead of sampling.

    python benchmarks/scale.py --json benchmarks/results/scale.json

The scheduler, the loop, Ray and the journal are the real ones; only the pipeline is a stub. Memory of the driver is
measured with all cells asked for, the index of a journal of as many included.
"""

import argparse
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deradiff.cluster.pool import Done, work
from deradiff.cluster.scheduler import Scheduler
from deradiff.cluster.settings import ClusterSettings
from deradiff.cluster.worker import DoBatch
from deradiff.runs.cells import Cell, Request, blocks
from deradiff.runs.index import Index, first_bytes
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo
from deradiff.runs.store import Store

BLOCK = 8
WORKERS = 1, 4, 16
SHA = "0" * 64


class Sleep:
    """A job that takes so many seconds a batch."""

    def __init__(self, seconds: float, identity: str) -> None:
        self.seconds, self.identity = seconds, identity

    @contextmanager
    def open(self) -> Iterator[tuple[DoBatch, Any]]:
        from deradiff.runs.cells import Keys

        keys = Keys(self.identity)

        def do(cells: list[Cell], context: Any) -> CellsRecord:
            time.sleep(self.seconds)
            info = SamplingInfo(nfe=len(cells), nfe_published=len(cells))
            return CellsRecord.of(cells, [keys(cell) for cell in cells], [SHA] * len(cells), {}, info)

        yield do, None


def request_of(count: int) -> Request:
    prompts = tuple(f"prompt {number} of a list that is long" for number in range(count // 80))
    return Request(prompts=prompts, seeds=range(10), lams=[lam / 8 for lam in range(8)])


def sweep(store: Store, count: int, workers: int, seconds: float) -> dict[str, float]:
    """Let workers do so many cells; what the driver took, and what came of it."""
    from deradiff.cluster.ray_pool import RayPool

    settings = ClusterSettings(workers=workers, gpus_per_worker=0, cpus_per_worker=0.01)
    pool = RayPool(settings, Sleep(seconds, store.recipe.identity))
    while len(pool.workers()) < workers:
        pool.wait(1)
    batches = ([[cell] for cell in block] for block in blocks(request_of(count).cells(), BLOCK))
    seen = Counter[str]()
    began, cpu = time.perf_counter(), time.process_time()
    with store.writing() as writer:
        for done in work(Scheduler(batches), pool, lambda record, fresh: record.select(fresh)):
            assert isinstance(done, Done)
            writer.append(done.value)
            seen.update(done.value.keys)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    pool.close()
    expected = request_of(count).count
    return {
        "workers": workers,
        "cells": expected,
        "wall": wall,
        "driver_cpu_ms_per_cell": 1000 * cpu / expected,
        "overhead_ms_per_cell": 1000 * (wall - expected / BLOCK * seconds / workers) / expected,
        "efficiency": expected / BLOCK * seconds / workers / wall,
        "lost": expected - len(seen),
        "duplicates": seen.total() - len(seen),
    }


def driver_megabytes(store: Store, count: int) -> float:
    """Memory of a driver, all told, that has journalled so many cells and draws as many more."""
    request = request_of(count)
    hashes = bytearray()
    for block in blocks(request.cells(), 1024):
        hashes += first_bytes([store.keys(cell) for cell in block])
    index = Index.of(hashes)
    scheduler = Scheduler([[cell] for cell in block] for block in blocks(request.cells(), BLOCK))
    number = 0
    while (ticket := scheduler.next(number % 16, 0.0)) is not None:
        scheduler.finish(ticket, 0.0)
        number += 1
    assert (scheduler.succeeded, len(index.hashes)) == (request.count, request.count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=1_000_000, help="of the measurement of memory")
    parser.add_argument("--cells-per-worker", type=int, default=800, help="of the measurements of time")
    parser.add_argument("--seconds", type=float, default=0.8, help="that a stub takes for a batch")
    given = parser.parse_args()
    import ray

    with TemporaryDirectory() as scratch:
        recipe = Recipe(model="stub", anchor="stub")
        megabytes = driver_megabytes(Store.at(Path(scratch) / "memory", recipe), given.cells)
        ray.init("local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
        runs = []
        for workers in WORKERS:
            store = Store.at(Path(scratch) / f"{workers}", recipe)
            runs.append(sweep(store, given.cells_per_worker * workers, workers, given.seconds))
        ray.shutdown()
    result = {
        "overhead_ms_per_cell": runs[-1]["overhead_ms_per_cell"],
        "driver_mb_1e6_cells": megabytes,
        "efficiency_16_workers": runs[-1]["efficiency"],
        "lost_cells": sum(run["lost"] for run in runs),
        "duplicate_records": sum(run["duplicates"] for run in runs),
        "cells_of_memory": given.cells,
        "seconds_per_batch": given.seconds,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "runs": runs,
    }
    given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
