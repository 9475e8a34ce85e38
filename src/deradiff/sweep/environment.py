"""What a run was made with, noted in its folder: models by their hashes, versions, machines; and what to cite."""

import json
import logging
import platform
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from deradiff.anchor.adapters import adapter_names
from deradiff.anchor.lend import unwrapped
from deradiff.anchor.source import CARD, Kind, find
from deradiff.errors import PlanError
from deradiff.sweep.writer import Writer, alone

logger = logging.getLogger("deradiff")

_LIBRARIES = ("deradiff", "torch", "diffusers", "transformers", "peft", "numpy", "pillow")
_HASHED = (".safetensors", ".json")

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


def environment(pipe: Any, components: tuple[str, ...], anchor: str) -> dict[str, Any]:
    """The models of a realigned pipeline by the sha256 of their files, and the versions and machine that run them.

    Args:
        pipe: the pipeline.
        components: names of its realigned denoisers.
        anchor: as given to ``realign``; the name of a loaded LoRA has no files to hash.

    Returns:
        JSON-able: ``model`` and ``anchor`` with ``files`` and ``revision`` (of the hub, where known), ``made_on``.
    """
    denoisers = {name: getattr(pipe, name) for name in components}
    homes = [denoiser.config.get("_name_or_path") for denoiser in denoisers.values()]
    loaded = any(anchor in adapter_names(unwrapped(denoiser)) for denoiser in denoisers.values())
    source = None if loaded else find(anchor, list(components))
    held = [] if source is None else [source.path]
    if source is not None and source.kind is Kind.PIPELINE:
        held = [source.path / name for name in components if source.holds(name)]
    device = pipe._execution_device
    here = {
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "platform": platform.platform(),
    }
    local = [Path(home) for home in homes if home and Path(home).is_dir()]
    return {"model": _hashes(local), "anchor": _hashes(held), "made_on": [here]}


def note_environment(writer: Writer, here: dict[str, Any]) -> None:
    """Write ``environment.json`` and ``CITATION.bib``; of a resumed run, compare with what it was begun with.

    Other versions or another machine are noted beside the first ones and told, since images may differ by rounding.

    Raises:
        PlanError: the run was begun with a model or an anchor of other weights.
    """
    path = writer.folder / "environment.json"
    with alone(writer.folder):
        before = _read(path) if path.exists() else {**here, "made_on": []}
        for what in ("model", "anchor"):
            if before[what]["files"] != here[what]["files"]:
                raise PlanError(
                    f"{writer.folder} was begun with another {what}: its files had other hashes ({path}); "
                    "bring those files back, or give another --out"
                )
        first, own = (before["made_on"] or here["made_on"])[0], here["made_on"][0]
        changed = [f"{name} {first.get(name)}, now {own[name]}" for name in own if own[name] != first.get(name)]
        if changed:
            logger.warning("the run was begun with %s: its images may differ by rounding", "; ".join(changed))
        if own not in before["made_on"]:
            noted = {**before, "made_on": [*before["made_on"], own]}
            writer.save(writer.folder / "CITATION.bib", CITATION.encode())
            writer.save(path, json.dumps(noted, indent=1).encode())


def _hashes(places: list[Path]) -> dict[str, Any]:
    """Of the weights and configs in folders, or of files."""
    found = [f for p in places for f in (sorted(p.iterdir()) if p.is_dir() else [p]) if f.suffix in _HASHED]
    files = [f for f in found if f.name != CARD]  # which may learn of a calibration at any time
    revisions = {place.parts[place.parts.index("snapshots") + 1] for place in places if "snapshots" in place.parts}
    return {
        "files": {f"{file.parent.name}/{file.name}": _sha256(file) for file in files},
        "revision": ", ".join(sorted(revisions)) or None,
    }


def _sha256(file: Path) -> str:
    digest = sha256()
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise PlanError(f"{path} is damaged ({error}); delete it to have it written anew") from error
