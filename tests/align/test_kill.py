"""The command killed at random moments, given again, and shared by two processes."""

import json
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests import processes
from tests.zoo import ZOO

from deradiff.align.processes import launcher_note

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


def launch_two(place: Path, out: str, *options: str) -> tuple[set[int | None], str]:
    """Exit codes and output of two processes in the environment that torchrun starts them with."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(processes.free_port())}
    outputs = [place / f"{out}-{rank}.txt" for rank in range(2)]
    started = [
        processes.start_command(
            *command(place, out), *options, output=output, environment=shared | {"RANK": rank, "LOCAL_RANK": rank}
        )
        for rank, output in zip("01", outputs, strict=True)
    ]
    for process in started:
        process.join()
    return {process.exitcode for process in started}, "".join(output.read_text() for output in outputs)


def test_two_processes_share_each_step(place: Path) -> None:
    codes, output = launch_two(place, "two")
    assert codes == {0}, output[-2000:]
    assert output.count("anchor in") == 1  # each of two lone trainings would say so
    assert losses(place, "two") == pytest.approx(losses(place, "whole"), rel=1e-3)
    first, second = (load_file(place / out / WEIGHTS) for out in ("whole", "two"))
    assert all(torch.allclose(first[key], second[key], atol=1e-3) for key in first)


def test_a_batch_that_two_processes_cannot_share_is_an_error_before_anything_is_made(place: Path) -> None:
    codes, output = launch_two(place, "odd", "--train-batch-size", "3")
    assert codes == {2}
    assert "can't be split among 2 processes" in output
    assert not (place / "odd").exists()


def test_a_launcher_that_starts_one_process_of_two_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)  # what accelerate launch --cpu --num_processes 2 sets
    assert "torchrun" in str(launcher_note())
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launcher_note() is None


def test_a_finished_training_given_again_writes_nothing(place: Path) -> None:
    def contents() -> dict[str, tuple[int, bytes]]:
        files = [file for file in (place / "whole").rglob("*") if file.is_file()]
        return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files if file.name != ".lock"}

    before = contents()
    run(place, "whole")
    assert contents() == before
    (place / "whole" / WEIGHTS).write_bytes(b"damaged")
    run(place, "whole")
    assert load_file(place / "whole" / WEIGHTS)
