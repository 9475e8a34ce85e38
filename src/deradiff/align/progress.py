"""Where a training stands: a checkpoint that any later process goes on from, and the log of its steps."""

import json
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from deradiff.align.files import put, told, writing
from deradiff.errors import AlignError

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint, whole or not at all.

    Raises:
        AlignError: it can't be written.
    """
    with writing(folder / CHECKPOINT) as file:
        torch.save(state, file)


def load(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a folder, or None where there is none.

    Raises:
        AlignError: it was made with other settings, named, or is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise AlignError(
            f"{path} is damaged ({error}); restore it, or delete it to begin this training again"
        ) from error
    before = state["settings"]
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        what = ", ".join(_change(name, before.get(name), settings[name]) for name in changed)
        raise AlignError(f"{folder} holds a training with other settings ({what}); give them again, or another folder")
    return state


def _change(name: str, before: Any, now: Any) -> str:
    return "other preferences" if name == "data" else f"{name} was {before!r}, now {now!r}"


class Log:
    """One line of JSON a step; lines after the checkpoint are dropped, as their steps are made again.

    A log that was shortened or lost lacks steps, and hinders nothing.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.path = folder / LOG
        lines = self.path.read_text().splitlines(keepends=True)[:steps] if self.path.exists() else []
        put(self.path, "".join(line for line in lines if line.endswith("\n")).encode())

    def add(self, **values: Any) -> None:
        """Append a step."""
        with told(self.path), self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Gives what tells whether Ctrl-C was pressed in the block, which then goes on; pressed again, it stops at once."""
    pressed, before = list[int](), signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    try:
        signal.signal(signal.SIGINT, press)
    except ValueError:  # not the main thread, which alone is told of signals
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
