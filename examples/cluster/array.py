"""A sweep as a Slurm job array, by submitit: pip install submitit, then python examples/cluster/array.py.

Every job samples its part of the blocks into the same folder; those that fail are given again by the same command.
"""

import subprocess
import sys

import submitit

JOBS, OUT = 64, "runs/large"


def sample(part: int) -> None:
    sweep = [sys.executable, "-m", "deradiff", "sweep", "--prompts", "prompts.txt", "--out", OUT]
    models = ["--model", "stabilityai/stable-diffusion-xl-base-1.0", "--anchor", "mhdang/dpo-sdxl-text2image-v1"]
    subprocess.run([*sweep, *models, "--dtype", "float16", "--shard", f"{part}/{JOBS}"], check=True)


def main() -> None:
    executor = submitit.AutoExecutor(folder="slurm-logs")
    executor.update_parameters(timeout_min=24 * 60, gpus_per_node=1, cpus_per_task=8, slurm_array_parallelism=JOBS)
    for job in executor.map_array(sample, range(1, JOBS + 1)):
        job.result()


if __name__ == "__main__":
    main()
