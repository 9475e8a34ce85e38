"""The command killed at random moments, and two processes that share each step."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.zoo import ZOO

from .subject import preferences

WEIGHTS = "pytorch_lora_weights.safetensors"
STEPS = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("align")
    ZOO["sd"].build().save_pretrained(folder / "model")
    preferences(folder / "pairs")
    run(folder, "whole")
    return folder


def command(place: Path, out: str, *launcher: str) -> list[str]:
    given = (
        f"--model {place / 'model'} --data {place / 'pairs'} --beta 0.01 --steps {STEPS} --train-batch-size 4 --rank 2"
    )
    more = f"--learning-rate 1e-3 --checkpointing-steps 3 --out {place / out}"
    return [sys.executable, *launcher, "-m", "deradiff", "align", *given.split(), *more.split()]


def run(place: Path, out: str, *launcher: str) -> None:
    done = subprocess.run(
        command(place, out, *launcher), capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def losses(place: Path, out: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (place / out / "log.jsonl").read_text().splitlines()]


def test_a_training_that_is_killed_again_and_again_ends_the_same(place: Path) -> None:
    rng, kills, reached = random.Random(0), 0, set[int]()
    log = place / "cut" / "log.jsonl"
    while kills < 2:
        process = subprocess.Popen(command(place, "cut"), stderr=subprocess.DEVNULL, env=environment())
        begun, wanted = len(log.read_text().splitlines()) if log.exists() else 0, rng.randint(4, 9)
        while process.poll() is None:
            if log.exists() and len(log.read_bytes().splitlines()) >= begun + wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
        reached.add(len(log.read_bytes().splitlines()))
    assert len(reached) == 2
    assert not (place / "cut" / WEIGHTS).exists()
    run(place, "cut")
    assert (place / "cut" / "log.jsonl").read_bytes() == (place / "whole" / "log.jsonl").read_bytes()
    first, second = (load_file(place / out / WEIGHTS) for out in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_ctrl_c_loses_no_step(place: Path) -> None:
    words = [*command(place, "paused"), "--checkpointing-steps", "1000"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        log = place / "paused" / "log.jsonl"
        while not (log.exists() and len(log.read_bytes().splitlines()) >= 4):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert "Stopped. What was made is kept" in process.communicate()[1]
    steps = len(losses(place, "paused"))
    assert 4 <= steps < STEPS
    assert torch.load(place / "paused" / "checkpoint.pt", weights_only=True)["step"] == steps
    run(place, "paused")
    assert losses(place, "paused") == losses(place, "whole")


def test_two_processes_share_each_step(place: Path) -> None:
    run(place, "two", *["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"])
    assert losses(place, "two") == pytest.approx(losses(place, "whole"), rel=1e-3)
    first, second = (load_file(place / out / WEIGHTS) for out in ("whole", "two"))
    assert all(torch.allclose(first[key], second[key], atol=1e-3) for key in first)
