"""What a path or hub id holds: a pipeline, a network, a single-file checkpoint or a LoRA; recognised, not loaded.

A folder and a repository on the hub are recognised by the same rules, from the names of their files: a repository is
listed first, and only the files that are needed are fetched.
"""

import glob
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    IncompleteSnapshotError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from deradiff.anchor.location import Location
from deradiff.compat import DENOISERS
from deradiff.errors import AnchorError, abbreviate
from deradiff.reading import exists, parse_object, read_object
from deradiff.writing import write_whole

CARD = "deradiff.json"  # beside the weights
_LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_LORA_KEYS = ("lora", "lokr_", "hada_")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = r"(-\d{5}-of-\d{5})?"
_WEIGHTS = re.compile(rf"(?P<base>[\w]+){_SHARD}(\.(?P<variant>\w+))?{_SHARD}\.safetensors")
_LAST_CHOICES = ("non_ema",)


class Kind(Enum):
    """What a path holds."""

    PIPELINE = "pipeline"  # a folder with one subfolder a component
    NETWORK = "network"  # a folder with one denoiser
    SINGLE_FILE = "single file"  # one safetensors file with all weights of a checkpoint
    LORA = "lora"  # one safetensors file


@dataclass(frozen=True, kw_only=True)
class Source:
    """An anchor on disk, recognised but not loaded.

    Attributes:
        path: the folder, or for a LoRA or a single-file checkpoint its file.
        kind: what it holds.
        variant: of its weights that is to be loaded; None the plain one.
        card: what the anchor says of itself (beta, its convention, seed, ...); empty where it says nothing.
        scheduler: the scheduler config saved beside a full checkpoint; empty where there is none.
    """

    path: Path
    kind: Kind
    variant: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, component: str) -> bool:
        """Whether a pipeline folder has weights for a component."""
        return self.kind is not Kind.PIPELINE or (self.path / component / "config.json").is_file()


def resolve_anchor(anchor: str | Path, components: list[str], location: Location | None = None) -> Source:
    """Recognise what a path or hub id holds.

    Args:
        anchor: folder, safetensors file, or hub id.
        components: names of the denoisers it may hold.
        location: where in it to look.

    Raises:
        AnchorError: nothing there, a pickle, or no weights for any of the components.
    """
    if not str(anchor).strip():
        raise AnchorError("the anchor is an empty text; give a folder, a .safetensors file, a hub id or a loaded LoRA")
    location = location or Location()
    path, on_disk = Path(os.path.expanduser(anchor)), is_on_disk(anchor)
    location.check_applies(f"the anchor {anchor}", path if on_disk else None, AnchorError)
    if not on_disk:
        path = _from_hub(str(anchor), components, location)
    if os.path.isfile(path):
        return _recognise_file(path)
    return _recognise_folder(path / (location.subfolder or ""), components, location)


def is_on_disk(anchor: str | Path) -> bool:
    """Whether an anchor is a folder or file of this machine.

    Raises:
        AnchorError: it can't be a path: too long, or with a null byte.
    """
    try:
        return Path(os.path.expanduser(anchor)).exists()  # leaves ~nobody as it is, where pathlib raises
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AnchorError(f"the anchor {abbreviate(anchor)!r} can't be a path or a hub id ({reason})") from error


def card_of(anchor: str | Path, location: Location | None = None) -> Mapping[str, Any]:
    """The card of an anchor in a local folder or file; empty where it has none or isn't local.

    Raises:
        AnchorError: it can't be a path, or holds nothing that could be an anchor.
    """
    return resolve_anchor(anchor, list(DENOISERS), location).card if is_on_disk(anchor) else {}


def write_card(anchor: str | Path, entries: Mapping[str, Any], location: Location | None = None) -> Path:
    """Add entries to the card of an anchor on this machine, in the deradiff.json beside its weights; returns that file.

    The weights themselves, and what a LoRA says in its metadata, stay as they are.

    Args:
        anchor: folder or file.
        entries: of the card.
        location: where in the folder the anchor lies.

    Raises:
        AnchorError: no such anchor here, or a place that can't be written.
    """
    if not is_on_disk(anchor):
        raise AnchorError(f"the card of {anchor} can't be written: expected an anchor in a folder on this machine")
    source = resolve_anchor(anchor, list(DENOISERS), location)
    path = _card_file(source.path)
    write_whole(path, json.dumps({**_json(path), **entries}, indent=1).encode() + b"\n", AnchorError)
    return path


def variants_in(names: Collection[str]) -> set[str | None]:
    """Variants of weights among the names of the files in a folder; None is the plain one."""
    return {match["variant"] for name in names if (match := _WEIGHTS.fullmatch(name))}


def choose_variant(names: Collection[str], what: str, variant: str | None = None) -> str | None:
    """The variant of weights to load, among the names of the files in a folder: None is the plain one.

    Raises:
        AnchorError: there are none, or none of the variant that is asked for.
    """
    variants = variants_in(names)
    if variant is not None and variant not in variants:
        there = ", ".join(sorted(one or "the plain one" for one in variants)) or "none"
        raise AnchorError(f"{what} has no weights of the variant {variant!r} in safetensors; there are: {there}")
    if variant is not None or None in variants or not variants:
        return variant
    return min(variants, key=lambda one: (one in _LAST_CHOICES, one != "fp16", str(one)))


def _from_hub(name: str, components: list[str], location: Location) -> Path:
    """The folder to which what is needed of a repository was fetched."""
    try:
        names = [file.rfilename for file in model_info(name, revision=location.revision, timeout=20).siblings or ()]
    except GatedRepoError as error:
        raise AnchorError(f"anchor {name!r} is gated: accept its terms on the hub, then run `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise AnchorError(f"anchor {name!r} has no revision {location.revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        raise AnchorError(_nowhere(name, "there is no such repository, or it is private: `hf auth login`")) from error
    except Exception as error:  # noqa: BLE001  (offline, in one of many words: what was fetched before may do)
        names, problem = None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    else:
        problem = ""
    try:
        if names is None:
            return cached_snapshot(name, location.revision)
        files = _needed_files(names, components, location, f"the repository {name}")
        patterns = [glob.escape(file) for file in files]
        return Path(snapshot_download(name, revision=location.revision, allow_patterns=patterns))
    except AnchorError:
        raise
    except Exception as error:  # of the network, of the disk, of the cache
        raise AnchorError(_nowhere(name, problem or f"{type(error).__name__}: {str(error)[:200]}")) from error


def cached_snapshot(name: str, revision: str | None = None) -> Path:
    """The folder of what was fetched of a repository before, which may be a part of it: only that is ever fetched.

    Raises:
        LocalEntryNotFoundError: nothing was.
    """
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)


def _nowhere(name: str, problem: str) -> str:
    return (
        f"anchor {name!r}: no such file or folder, no LoRA of that name on the pipe, and not on the hub or in its "
        f"cache ({problem}); give a folder, a .safetensors file, a hub id or a loaded LoRA's name"
    )


def _needed_files(names: Collection[str], components: list[str], location: Location, what: str) -> list[str]:
    """The files of a repository that an anchor needs."""
    root = f"{location.subfolder.strip('/')}/" if location.subfolder else ""
    inside = {name.removeprefix(root) for name in names if name.startswith(root)}
    kind, path = _recognise_names(inside, components, location, what)
    _check_variant_used(kind, path, location)
    sidecars = {CARD, "adapter_config.json", "config.json", "scheduler/scheduler_config.json", "scheduler_config.json"}
    needed = {name for name in inside if name in sidecars}
    if kind is None:
        return [root + name for name in sorted(needed | {path, str(_card_file(Path(path)))} & inside)]
    folders = [f"{component}/" for component in components] if kind is Kind.PIPELINE else [""]
    for folder in folders:
        here = [name.removeprefix(folder) for name in inside if name.startswith(folder)]
        here = [name for name in here if "/" not in name]
        variant = choose_variant(here, what, location.variant)
        of_variant = [name for name in here if (match := _WEIGHTS.fullmatch(name)) and match["variant"] == variant]
        indices = [name for name in here if name == "config.json" or ".index." in name]
        needed.update(folder + name for name in [*of_variant, *indices])
    return [root + name for name in sorted(needed)]


def _recognise_names(
    names: Collection[str], components: list[str], location: Location, what: str
) -> tuple[Kind | None, str]:
    """What a folder holds by the names of its files: a kind, or None and the one file to look into.

    Raises:
        AnchorError: none, several to choose from, or pickles alone.
    """
    if location.weight_name is not None:
        if location.weight_name not in names:
            raise AnchorError(f"{what} has no file {location.weight_name!r}; it holds {_some(names)}")
        return None, location.weight_name
    for name in _LORA_FILES:
        if name in names:
            return None, name
    if any(f"{component}/config.json" in names for component in components):
        return Kind.PIPELINE, ""
    if "config.json" in names:
        return Kind.NETWORK, ""
    candidates = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    plain = [name for name in candidates if _plain_name(name) not in candidates or _plain_name(name) == name]
    if len(plain) == 1:
        return None, plain[0]
    if plain:
        raise AnchorError(
            f"{what} holds several files, {_some(plain)}; name one with weight_name (--anchor-weight-name)"
        )
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise AnchorError(f"{what} holds only pickles ({_some(pickles)}), which can run code; convert to .safetensors")
    raise AnchorError(
        f"{what}: expected a pipeline folder with {' or '.join(components)}/config.json, a denoiser folder with "
        f"config.json, or one LoRA in .safetensors; found {_some(names) or 'nothing'}"
    )


def _check_variant_used(kind: Kind | None, file: str, location: Location) -> None:
    if kind is None and location.variant is not None:
        raise AnchorError(f"the anchor is the file {file}, which has no variants; leave {location.variant!r} out")


def _plain_name(name: str) -> str:
    """The name of a file without its variant: ``a.fp16.safetensors`` beside ``a.safetensors`` is a variant of it."""
    return re.sub(r"\.(fp16|bf16|fp32)\.safetensors$", ".safetensors", name)


def _some(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def _recognise_folder(path: Path, components: list[str], location: Location) -> Source:
    try:
        names = {entry.name for entry in path.iterdir() if entry.is_file()}
        for folder in [*components, "scheduler"]:
            if (path / folder).is_dir():
                names |= {f"{folder}/{entry.name}" for entry in (path / folder).iterdir()}
    except OSError as error:
        raise AnchorError(
            f"{path} can't be listed: {error.strerror or error}; give a folder that can be read"
        ) from error
    kind, file = _recognise_names(names, components, location, str(path))
    _check_variant_used(kind, file, location)
    if kind is None:
        return _recognise_file(path / file)
    folder = next((f"{c}/" for c in components if f"{c}/config.json" in names), "") if kind is Kind.PIPELINE else ""
    here = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    variant = choose_variant(here, f"{path}/{folder}".rstrip("/"), location.variant)
    scheduler = _scheduler(path if kind is Kind.PIPELINE else path.parent)
    return Source(path=path, kind=kind, variant=variant, card=_json(path / CARD), scheduler=scheduler)


def _recognise_file(path: Path) -> Source:
    if path.suffix in _PICKLES:
        raise AnchorError(f"{path} is a pickle, which can run code when loaded; convert it to .safetensors")
    if path.suffix != ".safetensors":
        raise AnchorError(f"{path}: expected a .safetensors file with LoRA weights, or a folder")
    try:
        with safe_open(path, framework="pt") as file:
            keys, metadata = list(file.keys()), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise AnchorError(
            f"{path} can't be read as safetensors ({error}); it may be cut short: fetch it again"
        ) from error
    beside = _json(_card_file(path))
    if any(part in key.lower() for key in keys for part in _LORA_KEYS):
        card = parse_object(metadata.get("deradiff", "{}"), f"the card in {path}", AnchorError)
        return Source(path=path, kind=Kind.LORA, card={**card, **beside})
    if len(keys) < 2:
        raise AnchorError(f"{path} holds no LoRA weights, and no checkpoint: its keys are {_some(keys) or 'none'}")
    return Source(path=path, kind=Kind.SINGLE_FILE, card=beside)


def _card_file(path: Path) -> Path:
    """Where a folder's card stands; a file has one under its own name, as there may be several in a folder."""
    return path.with_suffix(f".{CARD}") if path.suffix == ".safetensors" else path / CARD


def _json(path: Path) -> dict[str, Any]:
    return read_object(path, "the file", AnchorError) if exists(path, "the file", AnchorError) else {}


def _scheduler(folder: Path) -> dict[str, Any]:
    return _json(folder / "scheduler" / "scheduler_config.json")
