"""What a path or hub id holds: a pipeline, one network, or a LoRA; recognised without loading it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from deradiff.errors import AnchorError
from deradiff.io import replacing

_LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
CARD = "deradiff.json"  # beside the weights
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Kind(Enum):
    """What a path holds."""

    PIPELINE = "pipeline"  # a folder with one subfolder a component
    NETWORK = "network"  # a folder with one denoiser
    LORA = "lora"  # one safetensors file


@dataclass(frozen=True, kw_only=True)
class Source:
    """An anchor on disk, recognised but not loaded.

    Attributes:
        path: the folder, or for a LoRA its file.
        kind: what it holds.
        card: what the anchor says of itself (beta, its convention, seed, ...); empty where it says nothing.
        scheduler: the scheduler config saved beside a full checkpoint; empty where there is none.
    """

    path: Path
    kind: Kind
    card: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, component: str) -> bool:
        """Whether a pipeline folder has weights for a component."""
        return self.kind is not Kind.PIPELINE or (self.path / component / "config.json").is_file()


def resolve_anchor(anchor: str | Path, components: list[str]) -> Source:
    """Recognise what a path or hub id holds.

    Args:
        anchor: folder, safetensors file, or hub id.
        components: names of the denoisers it may hold.

    Raises:
        AnchorError: nothing there, a pickle, or no weights for any of the components.
    """
    if not str(anchor).strip():
        raise AnchorError("the anchor is an empty text; give a folder, a .safetensors file, a hub id or a loaded LoRA")
    path = Path(os.path.expanduser(anchor))  # leaves ~nobody as it is, where pathlib raises
    if not path.exists():
        path = _from_hub(str(anchor), components)
    return _recognise_file(path) if path.is_file() else _recognise_folder(path, components)


def card_of(anchor: str | Path) -> Mapping[str, Any]:
    """The card of an anchor in a local folder or file; empty where it has none or isn't local."""
    return resolve_anchor(anchor, ["unet", "transformer"]).card if Path(anchor).exists() else {}


def write_card(anchor: str | Path, entries: Mapping[str, Any]) -> Path:
    """Add entries to the card of an anchor on this machine, in the deradiff.json beside its weights; returns that file.

    The weights themselves, and what a LoRA says in its metadata, stay as they are.

    Raises:
        AnchorError: no such anchor here, or a place that can't be written.
    """
    if not Path(anchor).exists():
        raise AnchorError(f"the card of {anchor} can't be written: expected an anchor in a folder on this machine")
    source = resolve_anchor(anchor, ["unet", "transformer"])
    path = _card_file(source.path)
    with replacing(path, AnchorError) as part:
        part.write_text(json.dumps({**_json(path), **entries}, indent=1) + "\n")
    return path


def _card_file(path: Path) -> Path:
    """Where a folder's card stands; a LoRA has one under its own name, as there may be several in a folder."""
    return path / CARD if path.is_dir() else path.with_suffix(f".{CARD}")


def _from_hub(name: str, components: list[str]) -> Path:
    patterns = [f"{c}/*" for c in components] + ["scheduler/*", "*.json", "diffusion_pytorch_model*", *_LORA_FILES]
    ignored = ["*.bin", "*.msgpack", "*.onnx*", "*.fp16.*", "*non_ema*"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise AnchorError(
            f"anchor {name!r}: no such file or folder, no LoRA of that name on the pipe, and not on the hub or in its "
            f"cache ({type(error).__name__}); give a folder, a .safetensors file, a hub id or a loaded LoRA's name"
        ) from error


def _recognise_file(path: Path) -> Source:
    if path.suffix in _PICKLES:
        raise AnchorError(f"{path} is a pickle, which can run code when loaded; convert it to .safetensors")
    if path.suffix != ".safetensors":
        raise AnchorError(f"{path}: expected a .safetensors file with LoRA weights, or a folder")
    try:
        with safe_open(path, framework="pt") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise AnchorError(
            f"{path} can't be read as safetensors ({error}); it may be cut short: fetch it again"
        ) from error
    if not any("lora" in name.lower() or "lokr" in name.lower() for name in names):
        raise AnchorError(f"{path} holds no LoRA weights; a full checkpoint is given as its folder (with config.json)")
    card = _object(metadata.get("deradiff", "{}"), f"the card in {path}")
    return Source(path=path, kind=Kind.LORA, card={**card, **_json(_card_file(path))})


def _recognise_folder(path: Path, components: list[str]) -> Source:
    for name in _LORA_FILES:
        if (path / name).is_file():
            return _recognise_file(path / name)
    if any((path / component / "config.json").is_file() for component in components):
        return Source(path=path, kind=Kind.PIPELINE, card=_json(path / CARD), scheduler=_scheduler(path))
    if (path / "config.json").is_file():
        return Source(
            path=path,
            kind=Kind.NETWORK,
            card=_json(path / CARD),
            scheduler=_scheduler(path.parent),
        )
    candidates = sorted(path.glob("*.safetensors"))
    if len(candidates) == 1:
        return _recognise_file(candidates[0])
    pickles = sorted(p.name for p in path.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise AnchorError(
            f"{path} holds only pickles ({', '.join(pickles)}), which can run code; convert to .safetensors"
        )
    raise AnchorError(
        f"{path}: expected a pipeline folder with {' or '.join(components)}/config.json, a denoiser folder with "
        f"config.json, or one LoRA in .safetensors; found {sorted(p.name for p in path.iterdir())[:8] or 'nothing'}"
    )


def _json(path: Path) -> dict[str, Any]:
    return _object(path.read_text(), str(path)) if path.is_file() else {}


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AnchorError(f"{what} is damaged ({error}); fetch it again, or mend it") from error
    if not isinstance(value, dict):
        raise AnchorError(f'{what} holds {value!r}; expected an object like {{"beta": 0.1}}')
    return value


def _scheduler(folder: Path) -> dict[str, Any]:
    return _json(folder / "scheduler" / "scheduler_config.json")
