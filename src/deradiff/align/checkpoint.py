"""The state of a training on disk: the checkpoint from which it resumes, the log of its steps, the folder's lock."""

import json
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from deradiff.errors import AlignError
from deradiff.io import replacing, write_whole

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


def save_torch(path: Path, content: dict[str, Any]) -> None:
    """Write a file by ``torch.save``, atomically.

    Raises:
        AlignError: the file can't be written.
    """
    with write_errors(path), replacing(path, AlignError) as part, part.open("wb") as file:
        torch.save(content, file)


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a folder; None if there is none.

    Raises:
        AlignError: it is damaged, or belongs to other settings, which the message names.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise AlignError(
            f"{path} is damaged ({error}); restore it, or delete it to start this training again"
        ) from error
    previous = state["settings"]
    changed = sorted(name for name in settings if previous.get(name) != settings[name])
    if changed:
        what = ", ".join(_describe_change(name, previous.get(name), settings[name]) for name in changed)
        raise AlignError(f"{folder} holds a training with other settings ({what}); use those again, or another folder")
    return state


def _describe_change(name: str, previous: Any, current: Any) -> str:
    return "other preferences" if name == "data" else f"{name} was {previous!r}, now {current!r}"


class Log:
    """A log with one line of JSON for each step; lines after the checkpoint are dropped: their steps are repeated.

    A log that was truncated or lost lacks steps and has no other effect.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.path = folder / LOG
        before = self.path.read_bytes() if self.path.exists() else None
        lines = (before or b"").splitlines(keepends=True)[:steps]
        content = b"".join(line for line in lines if line.endswith(b"\n"))
        if content != before:
            write_whole(self.path, content, AlignError)

    def add(self, **values: Any) -> None:
        """Append a step."""
        with write_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


@contextmanager
def defer_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed in the block; a second Ctrl-C interrupts at once."""
    pressed, previous = list[int](), signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, previous)

    try:
        signal.signal(signal.SIGINT, press)
    except ValueError:  # not the main thread, which alone receives signals
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create a folder, if missing, and keep other processes from training in it inside the block.

    Raises:
        AlignError: another process trains there, or the folder can't be created.
    """
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / ".lock", timeout=0).acquire()
        except Timeout as error:
            raise AlignError(f"another process trains in {folder}; wait for it, or take another folder") from error
    with lock:
        yield


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing inside the block into an AlignError that names the path.

    Raises:
        AlignError: for every OSError and SafetensorError.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch's writer raises its own error with the disk's as context
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError | SafetensorError):
            raise
        raise AlignError(
            f"can't write {path} ({cause}); what was there is kept: put that right, and run the same command again"
        ) from error
