"""Where a training stands: a checkpoint that any later process goes on from, and the log of its steps."""

import json
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
        AlignError: it was made with other settings, named.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True, map_location="cpu")
    before = state["settings"]
    changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if changed:
        what = ", ".join(f"{name} was {before.get(name)!r}, now {settings.get(name)!r}" for name in sorted(changed))
        raise AlignError(f"{folder} holds a training with other settings ({what}); give them again, or another folder")
    return state


class Log:
    """One line of JSON a step; lines after the checkpoint are dropped, as their steps are made again."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.path = folder / LOG
        lines = self.path.read_text().splitlines(keepends=True)[:steps] if self.path.exists() else []
        if len(lines) < steps or not all(line.endswith("\n") for line in lines):
            raise AlignError(f"{self.path} has fewer than the {steps} steps of the checkpoint; take another folder")
        put(self.path, "".join(lines).encode())

    def add(self, **values: Any) -> None:
        """Append a step."""
        with told(self.path), self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
