"""Processes forked from a server that has imported everything: each starts in milliseconds instead of seconds."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from accelerate.state import AcceleratorState

from deradiff.cli import main

Result = TypeVar("Result")
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.warm"])


def start(function: Callable[..., object], *args: Any) -> BaseProcess:
    """A process that calls a function."""
    process = FORKING.Process(target=function, args=args)
    process.start()
    return process


def call(function: Callable[..., Result], *args: Any) -> Result:
    """What a function returns in a silent process: a limit on the size of files would hold for captured output too."""
    with ProcessPoolExecutor(1, FORKING, _write_output_to, (Path(os.devnull),)) as pool:
        return pool.submit(function, *args).result()


def start_command(*words: str, output: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """A process that is ``deradiff`` with these words and environment; what it prints goes to a file."""
    return start(_run_command, words, output, dict(environment or {}))


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _write_output_to(path: Path) -> None:
    with path.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


def _run_command(words: tuple[str, ...], output: Path, environment: dict[str, str]) -> None:
    _write_output_to(output)
    os.environ.update(environment)
    AcceleratorState._reset_state(reset_partial_state=True)  # the server's own, which has trained
    sys.argv = ["deradiff", *words]
    main()
