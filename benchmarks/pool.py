"""A dense grid to search in: 32 prompts x 24 seeds x 33 lams of the embedded pipeline, and what its images score.

    python benchmarks/pool.py

samples 25,344 images into runs/pool (half an hour on one core; it can be stopped and goes on) and writes their scores
and paths to benchmarks/results/pool.parquet, which is committed: benchmarks that choose among lams read it and sample
nothing.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deradiff import testbed
from deradiff.cli.common import progress
from deradiff.results import Results
from deradiff.sweep import Journal, Plan
from deradiff.sweep.models import load_pipeline
from deradiff.sweep.run import run
from deradiff.sweep.score import score

TABLE = Path(__file__).parent / "results" / "pool.parquet"
ANCHOR, BETA = "warmth-beta0.025-seed0", 0.025
REWARDS, PATHS = ("warmth", "faithfulness", "scene_distance"), ("implicit_reward", "q")
SHAPE = (32, 24, 33)


def plan() -> Plan:
    return Plan.of(
        model="embedded",
        anchor=f"embedded:{ANCHOR}",
        prompts=testbed.prompts(SHAPE[0], seed=6, drop=0.5),
        seeds=range(SHAPE[1]),
        lams=[step / (SHAPE[2] - 1) for step in range(SHAPE[2])],
        anchor_beta=BETA,
        steps=20,
        guidances=[1.0],
        batch_size=264,
    )


def table() -> dict[str, np.ndarray]:
    """The committed pool: name -> (prompts, seeds, lams)."""
    read = pq.read_table(TABLE)
    return {name: read[name].to_numpy().astype(float).reshape(SHAPE) for name in read.column_names}


def part(pool: dict[str, np.ndarray], prompts: np.ndarray, seeds: np.ndarray, lams: np.ndarray) -> Results:
    """Warmth and faithfulness of some prompts, seeds and lams, by their places."""
    place = np.ix_(prompts, seeds, lams)
    return Results(
        prompts=tuple(f"prompt {own}" for own in prompts),
        seeds=tuple(seeds.tolist()),
        lams=tuple((lams / (SHAPE[2] - 1)).tolist()),
        scores={name: pool[name][place] for name in ("warmth", "faithfulness")},
        images=np.full((len(prompts), len(seeds), len(lams)), "", dtype=object),
        path_kl=pool["path_kl"][place],
        anchor_beta=BETA,
    )


def main() -> None:
    journal = Journal(Path("runs/pool"), plan())
    pipe = load_pipeline(str(testbed.pipeline_path()))
    with progress("sampling", journal.plan.count) as advance:
        run(journal, pipe, str(testbed.anchor_path(ANCHOR)), advance)
    for reward in REWARDS:
        with progress(reward, journal.plan.count) as advance:
            score(journal, reward, progress=advance)
    results = journal.results()
    columns = {**results.scores, **{name: results.paths[name] for name in PATHS}, "path_kl": results.path_kl}
    arrays = {name: pa.array(np.asarray(values, np.float32).ravel()) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), TABLE, compression="zstd")


if __name__ == "__main__":
    main()
