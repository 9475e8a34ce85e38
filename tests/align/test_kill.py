"""The command killed at random moments, and two processes that share each step."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests import processes
from tests.zoo import ZOO

from .trainings import preferences

WEIGHTS = "pytorch_lora_weights.safetensors"
STEPS = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("align")
    ZOO["sd"].build().save_pretrained(folder / "model")
    preferences(folder / "pairs")
    run(folder, "whole")
    return folder


def command(place: Path, out: str) -> list[str]:
    given = (
        f"--model {place / 'model'} --data {place / 'pairs'} --beta 0.01 --steps {STEPS} --train-batch-size 4 --rank 2"
    )
    more = f"--learning-rate 1e-3 --checkpointing-steps 3 --out {place / out}"
    return ["align", *given.split(), *more.split()]


def start(place: Path, out: str, *options: str) -> BaseProcess:
    return processes.start_command(*command(place, out), *options, output=place / f"{out}.txt")


def run(place: Path, out: str) -> None:
    process = start(place, out)
    process.join()
    assert process.exitcode == 0, (place / f"{out}.txt").read_text()[-2000:]


def losses(place: Path, out: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (place / out / "log.jsonl").read_text().splitlines()]


def test_a_training_that_is_killed_again_and_again_ends_the_same(place: Path) -> None:
    rng, kills, reached = random.Random(0), 0, set[int]()
    log = place / "cut" / "log.jsonl"
    while kills < 2:
        process = start(place, "cut")
        begun, wanted = len(log.read_text().splitlines()) if log.exists() else 0, rng.randint(4, 9)
        while process.is_alive():
            if log.exists() and len(log.read_bytes().splitlines()) >= begun + wanted:
                process.kill()
                kills += 1
                break
            time.sleep(0.002)
        process.join()
        reached.add(len(log.read_bytes().splitlines()))
    assert len(reached) == 2
    assert not (place / "cut" / WEIGHTS).exists()
    run(place, "cut")
    assert (place / "cut" / "log.jsonl").read_bytes() == (place / "whole" / "log.jsonl").read_bytes()
    first, second = (load_file(place / out / WEIGHTS) for out in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_ctrl_c_loses_no_step(place: Path) -> None:
    process, log = start(place, "paused", "--checkpointing-steps", "1000"), place / "paused" / "log.jsonl"
    while process.is_alive() and not (log.exists() and len(log.read_bytes().splitlines()) >= 4):
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert "Stopped. What was made is kept" in (place / "paused.txt").read_text()
    steps = len(losses(place, "paused"))
    assert 4 <= steps < STEPS
    assert torch.load(place / "paused" / "checkpoint.pt", weights_only=True)["step"] == steps
    run(place, "paused")
    assert losses(place, "paused") == losses(place, "whole")


def test_two_processes_share_each_step(place: Path) -> None:
    launcher = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 -m deradiff"
    words = [sys.executable, *launcher.split(), *command(place, "two")]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(place, "two") == pytest.approx(losses(place, "whole"), rel=1e-3)
    first, second = (load_file(place / out / WEIGHTS) for out in ("whole", "two"))
    assert all(torch.allclose(first[key], second[key], atol=1e-3) for key in first)
