"""What a run was made with, noted in its folder: versions and machines; and what to cite."""

import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from deradiff.reading import exists, read_model
from deradiff.runs.writer import Writer, setup_lock

logger = logging.getLogger("deradiff")

_LIBRARIES = ("deradiff", "torch", "diffusers", "transformers", "peft", "numpy", "pillow")

_NAME = "environment.json"

CITATION = """\
@inproceedings{manujith2026deradiff,
  title = {{DeRaDiff}: Denoising Time Realignment of Diffusion Models},
  author = {Manujith, Ratnavibusena Don Shahain and Teoh, Tze Tzun and Kawaguchi, Kenji and Zhang, Yang},
  booktitle = {International Conference on Learning Representations},
  year = {2026},
  eprint = {2601.20198},
  archivePrefix = {arXiv},
}
"""


class Provenance(BaseModel):
    """``environment.json``: versions and machines that sampled parts of a run, the first one first."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    made_on: tuple[dict[str, str], ...]


def provenance(pipe: Any) -> dict[str, str]:
    """The versions and the machine that run a pipeline."""
    import torch

    device = pipe._execution_device
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "platform": platform.platform(),
    }


def note_provenance(writer: Writer, here: dict[str, str]) -> None:
    """Write ``environment.json`` and ``CITATION.bib``; other versions or another machine than the first are logged.

    Raises:
        RunFolderError: what is there is damaged, or can't be written.
    """
    path = writer.folder / _NAME
    with setup_lock(writer.folder):
        before = read_provenance(writer.folder)
        first = before.made_on[0] if before.made_on else here
        changed = [f"{name} {first.get(name)}, now {here[name]}" for name in here if here[name] != first.get(name)]
        if changed:
            logger.warning("the run was begun with %s: its images may differ by rounding", "; ".join(changed))
        if here not in before.made_on:
            noted = Provenance(made_on=(*before.made_on, here))
            writer.save(writer.folder / "CITATION.bib", CITATION.encode())
            writer.save(path, json.dumps(noted.model_dump(), indent=1).encode())


def read_provenance(folder: Path) -> Provenance:
    """What a run was made with so far.

    Raises:
        RunFolderError: the file is damaged, or a link out of the folder.
    """
    path, what = folder / _NAME, "the environment file"
    if not exists(path, what):
        return Provenance(made_on=())
    return read_model(Provenance, path, what, "delete it to have it written anew", inside=folder)
