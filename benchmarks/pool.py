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
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

TABLE = Path(__file__).parent / "results" / "pool.parquet"
ANCHOR, BETA = "warmth-beta0.025-seed0", 0.025
REWARDS, PATHS = ("warmth", "faithfulness", "scene_distance"), ("implicit_reward", "q")
SHAPE = (32, 24, 33)


RECIPE = {"model": "embedded", "anchor": f"embedded:{ANCHOR}", "anchor_beta": BETA, "steps": 20, "batch_size": 264}
SEEDS, LAMS = range(SHAPE[1]), [step / (SHAPE[2] - 1) for step in range(SHAPE[2])]


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
    run, prompts = Run(Path("runs/pool"), Recipe(**RECIPE)), testbed.prompts(SHAPE[0], seed=6, drop=0.5)
    requests = run.requests(prompts, SEEDS, LAMS, [1.0])
    with progress("sampling", run.cost(requests).missing) as advance:
        run.sample_requests(requests, progress=advance)
    for reward in REWARDS:
        with progress(reward, requests[0].count) as advance:
            run.score(reward, progress=advance)
    results = run.results().on_axes(prompts, SEEDS, LAMS)
    columns = {**results.scores, **{name: results.paths[name] for name in PATHS}, "path_kl": results.path_kl}
    arrays = {name: pa.array(np.asarray(values, np.float32).ravel()) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), TABLE, compression="zstd")


if __name__ == "__main__":
    main()
