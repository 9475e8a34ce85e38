"""``deradiff app`` as a person starts and ends it."""

import importlib.util
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import requests
from tests.cli.shell import mistaken
from tests.processes import free_port, start_command

from deradiff.app.engine import Engine
from deradiff.app.requests import ImageRequest
from deradiff.app.turns import Job
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

PATIENCE = 300  # seconds: a busy machine must not fail a test


def test_it_opens_on_the_embedded_pipeline_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    output, port = tmp_path / "output.txt", free_port()
    process = start_command("app", str(tmp_path / "run"), "--port", str(port), output=output)
    until = time.monotonic() + PATIENCE
    while "the page is at" not in (said := output.read_text() if output.exists() else ""):
        assert process.is_alive(), said
        assert time.monotonic() < until, said
        time.sleep(0.1)
    answer = requests.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE)
    assert answer.status_code == 200
    assert f"http://127.0.0.1:{port};" in said
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(PATIENCE)
    assert process.exitcode == 130
    assert "Traceback" not in output.read_text()
    assert "Stopped." in output.read_text()


def test_the_embedded_pipeline_draws(tmp_path: Path) -> None:
    with Run(tmp_path / "run", Recipe(model="embedded", anchor="embedded")).sampler() as sampler:
        request = ImageRequest(prompt="a white circle", lams=(("aligned", 0.5),), steps=2, guidance=1.0)
        assert Engine(sampler).draw(request, Job()).size == (64, 64)


def test_mistakes_are_told_before_models_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(tmp_path / "run")
    mistaken("app", run, "--host", "0.0.0.0", expected="--password-file")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        mistaken("app", run, "--port", str(taken.getsockname()[1]), expected="give another --port")
    mistaken("app", run, "--model", str(tmp_path), expected="--anchor is missing")
    mistaken("app", run, "--another-anchor", "warm", expected="expected NAME=ANCHOR")
    mistaken("app", run, "--another-anchor", "warm=embedded", "--ray", "local", expected="leave one out")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    mistaken("app", run, expected="pip install 'deradiff[app]'")
    assert not Path(run).exists()
