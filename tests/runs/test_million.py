"""A quarter of a million images: asked for, dealt to shards, half done and found again, in bounded memory.

``benchmarks/runs.py`` measures a million.
"""

import json
import os
import resource
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SHARDS = 3
SIZE = 1020  # images a block
PROMPTS, SEEDS, LAMS = 5_000, 3, 17
CELLS = PROMPTS * SEEDS * LAMS
HALF = PROMPTS * SEEDS * 9  # every second lam is there


def peak() -> float:
    """Most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def shown(keys: list[bytes]) -> Iterator[None]:
    """Image files that are as good as there: making so many of them would take minutes."""
    keys.sort()
    scan, list_names = os.scandir, os.listdir

    def names(place: Any) -> Iterator[str]:
        first = int(Path(place).name, 16)
        end = len(keys) if first == 255 else bisect_left(keys, bytes([first + 1]))
        return (f"{keys[number].hex()}.png" for number in range(bisect_left(keys, bytes([first])), end))

    def is_of_images(place: Any) -> bool:
        return Path(place).parent.name == "images"

    @contextmanager
    def scandir(place: Any) -> Iterator[Any]:
        if is_of_images(place):
            yield (entry(place, name) for name in names(place))
        else:
            with scan(place) as entries:
                yield entries

    changed: Any = os
    changed.scandir = scandir
    changed.listdir = lambda place: list(names(place)) if is_of_images(place) else list_names(place)
    try:
        yield
    finally:
        changed.scandir, changed.listdir = scan, list_names


def entry(place: Any, name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, path=f"{place}/{name}", is_symlink=lambda: False, is_file=lambda **_: True)


def resume(folder: Path) -> dict[str, float]:
    before = peak()  # of the interpreter
    from deradiff.runs.cells import Request, blocks
    from deradiff.runs.missing import cells_of_shard, is_complete, missing_of
    from deradiff.runs.recipe import Recipe
    from deradiff.runs.records import CellsRecord, SamplingInfo
    from deradiff.runs.store import Store

    prompts = [f"prompt number {i}" for i in range(PROMPTS)]
    half, whole = (
        Request(prompts=prompts, seeds=range(SEEDS), lams=[i / count for i in range(LAMS) if i / count <= 2])
        for count in (4, 8)
    )
    store = Store.at(folder, Recipe(model="m", anchor="a", batch_size=SIZE))
    there: list[bytes] = []
    with store.writing() as writer:
        for request in (half, whole):
            store.add_request(request)
        for block in blocks(half.cells(), SIZE):
            keys = [store.keys(cell) for cell in block]
            info = SamplingInfo(nfe=len(block), nfe_published=len(block), seconds=1)
            values: dict[str, list[float | None]] = {name: [0.5] * len(block) for name in ("q", "log_weight", "ess")}
            writer.append(CellsRecord.of(block, keys, [key + key for key in keys], values, info))
            there += map(bytes.fromhex, keys)
    held = len(there) * (sys.getsizeof(there[0]) + 8) / 2**20  # by the test itself
    for first in range(256):
        (folder / "images" / f"{first:02x}").mkdir(parents=True)
    with shown(there):
        asked = Store.open(folder).requests()
        missing = missing_of(store)
        dealt, to_do = [0] * SHARDS, 0
        for shard in range(SHARDS):
            for cell in missing(counted(cells_of_shard(store.recipe, asked, (shard, SHARDS)), dealt, shard)):
                assert cell.lam in whole.lams
                assert cell.lam not in half.lams
                to_do += 1
        complete = is_complete(store, asked)
    return {
        "dealt": sum(dealt),
        "largest shard": max(dealt),
        "to do": to_do,
        "complete": complete,
        "MB": peak() - before - held,
    }


def counted(cells: Iterator[Any], counts: list[int], place: int) -> Iterator[Any]:
    for cell in cells:
        counts[place] += 1
        yield cell


def test_many_images_in_bounded_memory(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path / "run")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["dealt"] == CELLS
    assert told["largest shard"] <= CELLS / SHARDS + 2 * SIZE
    assert told["to do"] == CELLS - HALF
    assert told["complete"] is False
    assert told["MB"] <= 56


if __name__ == "__main__":
    sys.stdout.write(json.dumps(resume(Path(sys.argv[1]))))
