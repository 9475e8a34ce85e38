"""Workers as if they were on another machine: they don't see the run folder, and their storage refuses at times."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

ROOT = str(Path(__file__).parents[2])


class RefusingFileSystem(LocalFileSystem):
    """Files of a folder, which can neither be read nor written while it holds a file named ``refusing``."""

    protocol = "refusing"

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).removeprefix("refusing://"))

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        storage = Path(path).parents[1]
        if (storage / "refusing").exists():
            with (storage / "refused").open("a") as file:
                file.write("x")
            raise PermissionError("the storage refuses")
        return super()._open(path, mode, block_size, **kwargs)


def refused(storage: Path) -> int:
    """How often a storage has refused."""
    return (storage / "refused").stat().st_size if (storage / "refused").exists() else 0


def register() -> None:
    """Let ``refusing://`` be this file system."""
    fsspec.register_implementation("refusing", RefusingFileSystem, clobber=True)


def set_up_worker() -> None:
    """What a worker's process does before anything else."""
    from deradiff.cluster import images

    register()
    images._PATIENCE = 0.1, 0.2
    exists = os.path.exists
    os.path.exists = lambda path: ".cells.parts" not in str(path) and exists(path)


@dataclass(frozen=True)
class Large:
    """Work of which little goes out and much comes back; notes in a folder that it was done."""

    folder: Path

    @contextmanager
    def open(self) -> Iterator[Any]:
        def do(items: list[int], context: None) -> bytes:
            (self.folder / uuid4().hex).touch()
            return bytes(items) * (4 << 20)

        yield do, None


RUNTIME_ENV = {"worker_process_setup_hook": f"{__name__}.set_up_worker", "env_vars": {"PYTHONPATH": ROOT}}
