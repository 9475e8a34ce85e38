"""The state of a training on disk: the checkpoint from which it resumes, the log of its steps, the folder's lock."""

import json
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors

from deradiff.anchor.earlier_weights import CHECKPOINT
from deradiff.errors import AlignError, reason_of
from deradiff.reading import exists, open_regular, read_errors, read_whole
from deradiff.writing import replacing, write_whole

LOG = "log.jsonl"
_STATE = ("settings", "step", "trained", "optimizer", "rate", "ema", "scaler")


def save_torch(path: Path, content: dict[str, Any]) -> None:
    """Write a file by ``torch.save``, atomically.

    Raises:
        AlignError: the file can't be written.
    """
    with write_errors(path), replacing(path, AlignError) as part, part.open("wb") as file:
        torch.save(content, file)


def load_torch(path: Path, remedy: str) -> dict[str, Any]:
    """What `save_torch` wrote, tensors and plain values alone.

    Raises:
        AlignError: it can't be read, or is damaged; says ``remedy``.
    """
    with read_errors(path, "the file", AlignError), open_regular(path) as file:
        try:
            content = torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:  # damaged files raise many kinds of errors
            raise AlignError(f"{path} is damaged ({reason_of(error)}); {remedy}") from error
    if not isinstance(content, dict):
        raise AlignError(f"{path} is damaged (it holds a {type(content).__name__}); {remedy}")
    return content


def load_latent(path: Path) -> torch.Tensor:
    """The latent in a safetensors file.

    Raises:
        AlignError: it can't be read, or is damaged.
    """
    content = read_whole(path, "the latent", AlignError)
    try:
        return from_safetensors(content)["latent"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise AlignError(f"{path} is damaged ({reason_of(error)}); delete it to have it made again") from error


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a folder; None if there is none.

    Raises:
        AlignError: it is damaged, or belongs to other settings, which the message names.
    """
    path = folder / CHECKPOINT
    if not exists(path, "the checkpoint", AlignError):
        return None
    remedy = "restore it, or delete it to start this training again"
    state = load_torch(path, remedy)
    if lacking := [name for name in _STATE if name not in state]:
        raise AlignError(f"{path} is damaged (it lacks {', '.join(lacking)}); {remedy}")
    previous = state["settings"]
    if not isinstance(previous, dict):
        raise AlignError(f"{path} is damaged (its settings are a {type(previous).__name__}); {remedy}")
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
        known = exists(self.path, "the log", AlignError)
        before = read_whole(self.path, "the log", AlignError) if known else None
        lines = (before or b"").splitlines(keepends=True)[:steps]
        content = b"".join(line for line in lines if line.endswith(b"\n"))
        if content != before:
            write_whole(self.path, content, AlignError)

    def add(self, **values: Any) -> None:
        """Append a step."""
        with write_errors(self.path), open_regular(self.path, "ab") as file:
            file.write(json.dumps(values).encode() + b"\n")


@contextmanager
def defer_interrupt() -> Generator[Callable[[], bool]]:
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
def lock_folder(folder: Path) -> Generator[None]:
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
def write_errors(path: Path) -> Generator[None]:
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
