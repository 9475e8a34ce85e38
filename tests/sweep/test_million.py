"""A plan of a million images: listed, dealt to shards, half done and found again, in bounded memory."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from deradiff.sweep import Journal, Plan
from deradiff.sweep.records import BatchRecord

SHARDS = 7


def peak() -> float:
    """Most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def million(folder: Path) -> dict[str, float]:
    lams = [i / 8 for i in range(17)]
    prompts = [f"prompt number {i}" for i in range(20_000)]
    plan = Plan.of(model="m", anchor="a", prompts=prompts, seeds=range(3), lams=lams, batch_size=6 * 17)
    before, name = peak(), plan.image_names()
    listed = sum(len(name(cell)) for cell in plan.cells()) / len(name(next(plan.cells())))
    dealt = np.zeros(plan.batch_count, int)
    for shard in range(SHARDS):
        for batch in plan.batches((shard, SHARDS)):
            dealt[batch.index] += 1
    journal = Journal(folder, plan)
    with journal.writing((0, 2)) as writer:
        for batch in plan.batches((0, 2)):
            writer.append(record(batch.index, batch.count(plan)))
    with journal.writing((1, 2)):
        index = journal.index()
    found = [index.get(batch.index) == record(batch.index, batch.count(plan)) for batch in plan.batches()]
    return {
        "listed": listed,
        "batches": plan.batch_count,
        "dealt once": int((dealt == 1).sum()),
        "found": sum(found[::2]),
        "to do": found[1::2].count(False),
        "MB": peak() - before,
    }


def record(batch: int, count: int) -> BatchRecord:
    return BatchRecord(batch=batch, sha256=[f"{batch:064x}"] * count, path_kl=[0.5] * count, info={"calls": batch})


def test_a_million_images_in_bounded_memory(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path / "run")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    batches = 20_000 // 2  # two prompts with their three seeds each
    assert told["listed"] == 20_000 * 3 * 17
    assert told["batches"] == told["dealt once"] == batches
    assert told["found"] == told["to do"] == batches / 2
    assert told["MB"] < 30


if __name__ == "__main__":
    sys.stdout.write(json.dumps(million(Path(sys.argv[1]))))
