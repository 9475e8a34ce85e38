"""What a run costs beside sampling: finding out what is missing of it, and reading the answer off it.

    python benchmarks/runs.py --json FILE

Each figure is measured in a process of its own; keys that end in ``_cpu_s`` are processor time of the same, which other
work on the machine disturbs less. Runs are written, not sampled, but for the first; caches of the disk are warm.

- ``resume_complete_s``: the command ``sweep --out R`` on a complete run of 8 images, from start to end of the process,
  median of 5. It must load no model.
- ``first_batch_1e6_s``: a run of 1,000,000 images asked for, half of them journalled by a line for each 8 and with an
  entry in their folders (hard links to a few tiny files), is opened; until the first block to sample is known, imports
  not counted, median of 3. ``first_batch_nothing_1e6_s`` is the same with no image journalled, and
  ``first_batch_by_sweep_1e6_s`` all that the command ``sweep`` does in the half journalled run before its first block,
  its estimate of time included, loading the model not.
- ``index_mb_1e6``: the most memory beyond that after imports, while all 1,000,000 are journalled and looked for.
- ``recommend_50k_s``, ``report_50k_s``: ``deradiff recommend`` and ``report`` on a run of 50,000 images with scores of
  two rewards, from start to end of the process, median of 3.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import runs_painted as painted
from rich.console import Console
from rich.table import Table

from deradiff.cli.running import run_and_report
from deradiff.runs.cells import WHOLE, Cell
from deradiff.runs.missing import is_complete, missing_of
from deradiff.runs.run import Run
from deradiff.runs.sampler import Sampler, sampling_blocks

MILLION, HALF = (12_500, 8, 10), 500_000  # prompts, seeds, lams; images
SCORED = (625, 8, 10)
AIMS = {
    "resume_complete_s": 2.0,
    "first_batch_1e6_s": 3.0,
    "index_mb_1e6": 150.0,
    "recommend_50k_s": 3.0,
    "report_50k_s": 20.0,
}
QUESTION = ("--objective", "a", "--guard", "b:-10%")


class Reached(Exception):  # noqa: N818
    """The first block is about to be sampled."""


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(function, *arguments).result()


def timed(name: str, command: list[str], repeats: int, expected: str) -> dict[str, float]:
    """Wall and processor time of ``deradiff`` from start to end, which must print something."""
    walls, processor = [], []
    for _ in range(repeats):
        before, start = _children(), time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "deradiff", *command], capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - start)
        processor.append(_children() - before)
        assert expected in done.stdout, done.stdout
    return {f"{name}_s": median(walls), f"{name}_cpu_s": median(processor)}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resumed(folder: Path) -> dict[str, Any]:
    """The same command again on a run that is complete."""
    run = ["sweep", "--out", str(folder / "swept")]
    prompts = [text for number in range(2) for text in ("--prompt", f"a {('red', 'blue')[number]} circle")]
    asked = ["--seeds", "2", "--lams", "0,1", "--steps", "1"]
    subprocess.run([sys.executable, "-m", "deradiff", *run, *prompts, *asked], capture_output=True, check=True)
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deradiff", *run], capture_output=True, text=True, check=True
    )
    modules = {line.rsplit("|", 1)[-1].strip() for line in imported.stderr.splitlines()}
    loaded = [name for name in ("diffusers", "torch", "numpy") if name in modules]
    assert "diffusers" not in loaded, "a complete run loads the model's libraries"
    return {**timed("resume_complete", run, 5, "complete"), "resume_complete_imports": loaded}


def first_batch(folder: Path) -> dict[str, float]:
    """Until a run that is opened knows the first block to sample."""
    start, used = time.perf_counter(), time.process_time()
    run = Run(folder)
    block = next(sampling_blocks(run.recipe, run.requests(), missing_of(run.store), WHOLE))
    found = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - used}
    assert len(block) == run.recipe.batch_size
    return found


class Stopping(Run):
    """A run that stops at its first block."""

    loading = 0.0  # seconds

    @contextmanager
    def sampler(self) -> Iterator[Sampler]:
        def stop(block: list[Cell]) -> None:
            raise Reached

        start = time.perf_counter()
        with super().sampler() as sampler:
            self.loading = time.perf_counter() - start
            sampler.sample = stop
            yield sampler


def first_batch_by_sweep(folder: Path) -> dict[str, float]:
    """All that the command ``sweep`` does before its first block, but loading the model."""
    before, start, used = _memory_from_here(), time.perf_counter(), time.process_time()
    run = Stopping(folder)
    try:
        with redirect_stdout(io.StringIO()):
            run_and_report(run, run.requests(), rewards=[], objective=None, guard=None)
    except Reached:
        seconds, processor = time.perf_counter() - start - run.loading, time.process_time() - used
        return {"s": seconds, "cpu_with_loading_s": processor, "mb_with_model": _megabytes("VmHWM") - before}
    raise AssertionError("nothing was missing")


def index_memory(folder: Path) -> dict[str, float]:
    """Memory and time of a complete run's index, its images on disk, and looking for every cell."""
    store = painted.store_at(folder)
    before, start = _memory_from_here(), time.perf_counter()
    assert is_complete(store, store.requests())
    return {"index_mb_1e6": _megabytes("VmHWM") - before, "walk_1e6_s": time.perf_counter() - start}


def _memory_from_here() -> float:
    """MB that this process holds now; its peak is from now on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _megabytes("VmRSS")


def _megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def write_part(folder: Path, start: int, stop: int) -> None:
    """Write lines for some of the million cells, and link their images."""
    store = painted.store_at(folder)
    cells = list(islice(painted.request(*MILLION).cells(), start, stop))
    painted.journal(store, cells, {})
    painted.link_images(store, cells)


def write_scored(folder: Path) -> None:
    """A run of 50,000 images with scores of two rewards."""
    store, request = painted.store_at(folder), painted.request(*SCORED)
    hashes = painted.paint(store, request.cells())
    painted.journal(store, request.cells(), hashes)
    painted.scores(store, list(request.cells()), hashes)
    store.add_request(request)


def million(folder: Path) -> dict[str, Any]:
    """What a run of a million images costs."""
    request = painted.request(*MILLION)
    alone(write_part, folder, 0, 0)
    painted.store_at(folder).add_request(request)
    nothing = alone(first_batch, folder)
    alone(write_part, folder, 0, HALF)
    half = [alone(first_batch, folder) for _ in range(3)]
    by_sweep = alone(first_batch_by_sweep, folder)
    alone(write_part, folder, HALF, request.count)
    return {
        "first_batch_1e6_s": median(own["s"] for own in half),
        "first_batch_1e6_cpu_s": median(own["cpu_s"] for own in half),
        "first_batch_nothing_1e6_s": nothing["s"],
        **{f"first_batch_by_sweep_1e6_{key}": value for key, value in by_sweep.items()},
        **alone(index_memory, folder),
        "images_1e6": request.count,
        "journalled_first_batch": HALF,
    }


def answered(folder: Path) -> dict[str, Any]:
    """What the answer of a run of 50,000 images costs."""
    alone(write_scored, folder)
    found: dict[str, Any] = {"images_50k": painted.request(*SCORED).count}
    for name in ("recommend", "report"):
        found |= timed(f"{name}_50k", [name, str(folder), *QUESTION], 3, "recommended")
    return {**found, "report_50k_mb": (folder / "report.html").stat().st_size / 1e6}


def show(found: dict[str, Any], keys: Iterable[str]) -> None:
    """Print the figures beside their aims."""
    table = Table("figure", "measured", "aim")
    for key in keys:
        table.add_row(key, f"{found[key]:.3g}", f"<= {AIMS[key]:g}" if key in AIMS else "")
    Console().print(table)


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with TemporaryDirectory(prefix="deradiff-runs-") as folder:
        os.environ["DERADIFF_CACHE"] = f"{folder}/cache"  # hashes of models, made by the first command
        for place, measured in enumerate((resumed, answered, million)):
            found |= measured(Path(folder) / str(place))
    show(found, [*AIMS, *(key for key, value in found.items() if key not in AIMS and isinstance(value, float))])
    headline = {key: found[key] for key in AIMS}
    given.json.write_text(json.dumps({**headline, **found, "cores": os.cpu_count()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
