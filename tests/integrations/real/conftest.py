"""The checkout of ComfyUI that the real tests run."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest


class Checkout(NamedTuple):
    """A checkout, and the Python that runs it."""

    folder: Path
    python: Path


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    folder = Path(os.environ["COMFYUI_DIR"]).resolve()
    python = os.environ.get("COMFYUI_PYTHON") or folder / ".venv" / "bin" / "python"
    return Checkout(folder, Path(python).absolute())
