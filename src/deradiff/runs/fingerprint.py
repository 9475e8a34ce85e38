"""What a model is, whatever it is called: a hash of the content of its weights and configs.

Weights are hashed by their tensors (name, dtype, shape, bytes), so that the same tensors in another file, with other
metadata or in shards, are the same model. Hashing gigabytes takes seconds, so hashes of files are kept in the user's
cache by path, size and time of change.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from deradiff.errors import DeradiffError, RunFolderError
from deradiff.io import exists, open_regular, parse_object, read_errors, read_object, write_whole
from deradiff.runs.recipe import Recipe
from deradiff.testbed import resolve_anchor, resolve_model

_CONFIGS = ("config.json", "scheduler_config.json", "model_index.json", "adapter_config.json")
_WEIGHTS, _VARIANTS = ".safetensors", (".fp16.", ".bf16.", ".non_ema.")
_BLOCK = 1 << 22
_HASH = re.compile("[0-9a-f]{32}")
_CACHE = "hashes-1.json"  # another number for every change of how files are hashed
_LARGEST_HEADER = 100 << 20  # bytes, safetensors' own limit


def fingerprint(name: str, parts: Iterable[str] | None = None) -> str | None:
    """The hash of a model on this machine: a folder, a file, or a hub id in the local cache; None where there is none.

    Args:
        name: folder, file or hub id.
        parts: beginnings of the names of subfolders that count; all by default.

    Raises:
        RunFolderError: a file of it can't be read.
    """
    path = _local(name)
    if path is None:
        return None
    with read_errors(path, "the model"):
        files = [path] if path.is_file() else _files(path, None if parts is None else tuple(parts))
    known = _Known()
    sums: dict[str, int] = {}
    for file in files:
        part = "" if file == path else file.parent.relative_to(path).as_posix()
        entry = f"{part}/{'weights' if file.suffix == _WEIGHTS else file.name}"
        sums[entry] = (sums.get(entry, 0) + int(known.of(file), 16)) % (1 << 128)  # shards of one network add up
    known.save()
    digest = blake2b(digest_size=16)
    for entry, checksum in sorted(sums.items()):
        digest.update(f"{entry}\0{checksum:032x}\n".encode())
    return digest.hexdigest()


def with_hashes(recipe: Recipe) -> Recipe:
    """A recipe with the hashes of what its model and anchor are now; one that can't be inferred stays as it was.

    Raises:
        RunFolderError: a file of a model can't be read.
        AnchorError: no embedded anchor of that name.
    """
    hashes = {
        "model_hash": fingerprint(resolve_model(recipe.model)),
        "anchor_hash": fingerprint(resolve_anchor(recipe.anchor)),
    }
    return recipe.model_copy(update={name: value for name, value in hashes.items() if value is not None})


def state_fingerprint(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash of models in memory: names of components -> their state dicts."""
    digest = blake2b(digest_size=16)
    for part in sorted(parts):
        for name in sorted(parts[part]):
            tensor = parts[part][name].detach().cpu().contiguous()
            digest.update(f"{part}\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.flatten().view(_uint8()).numpy().tobytes())
    return digest.hexdigest()


def _uint8() -> Any:
    import torch

    return torch.uint8


def _local(name: str) -> Path | None:
    if not name.strip():
        return None
    path = os.path.expanduser(name)  # leaves ~nobody as it is, where pathlib raises
    if os.path.exists(path):
        return Path(path)
    from huggingface_hub.errors import HfHubHTTPError  # takes a quarter of a second

    from deradiff.anchor.source import cached_snapshot

    try:
        return cached_snapshot(name)
    except (OSError, ValueError, HfHubHTTPError):  # not in the local cache, or no hub id: there is nothing to hash
        return None


def _files(folder: Path, parts: tuple[str, ...] | None) -> list[Path]:
    """The weights and configs in a folder and its subfolders, of several variants the plain one."""
    folders = [folder, *(sub for sub in sorted(folder.iterdir()) if sub.is_dir())]
    pipeline = (folder / "model_index.json").is_file()
    chosen: list[Path] = []
    for subfolder in folders:
        if subfolder != folder and parts is not None and not subfolder.name.startswith(parts):
            continue
        files = [file for file in sorted(subfolder.glob("*")) if file.is_file()]
        weights = [file for file in files if file.suffix == _WEIGHTS and not (pipeline and subfolder == folder)]
        plain = [file for file in weights if not any(variant in file.name for variant in _VARIANTS)]
        chosen += [*(plain or weights), *(file for file in files if file.name in _CONFIGS)]
    return chosen


def _cache_file() -> Path | None:
    if configured := os.environ.get("DERADIFF_CACHE"):
        return Path(configured) / _CACHE
    try:
        return Path.home() / ".cache" / "deradiff" / _CACHE
    except RuntimeError:  # a user without a home, as in some containers: nothing is kept
        return None


class _Known:
    """Hashes of files, in the user's cache."""

    def __init__(self) -> None:
        self._path = _cache_file()
        self._hashes: dict[str, Any] = {}
        try:
            if self._path is not None and exists(self._path, "the cache of hashes"):
                self._hashes = read_object(self._path, "the cache of hashes")
        except DeradiffError:  # a damaged cache is made anew
            self._hashes = {}
        self._changed = False

    def of(self, file: Path) -> str:
        """The hash of a file."""
        with read_errors(file, "the model's file"):
            status = file.stat()
            # mtime alone is what archives and containers set; ctime isn't
            key = f"{os.path.realpath(file)}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
            known = self._hashes.get(key)
            if not isinstance(known, str) or not _HASH.fullmatch(known):
                known = self._hashes[key] = _hash_tensors(file) if file.suffix == _WEIGHTS else _hash_config(file)
                self._changed = True
            return known

    def save(self) -> None:
        """Keep what was hashed; a cache that can't be written costs time alone."""
        if self._changed and self._path is not None:
            try:
                write_whole(self._path, json.dumps(self._hashes).encode())
            except DeradiffError:
                return


def _hash_config(file: Path) -> str:
    """Of a config's content but for the versions and paths that diffusers notes in it."""
    config = read_object(file, "the config")
    settings = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    return blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def _hash_tensors(file: Path) -> str:
    """The sum of the hashes of a safetensors file's tensors, whatever their order and the metadata beside them."""
    total = 0
    with open_regular(file) as content:
        length = int.from_bytes(content.read(8), "little")
        if length > _LARGEST_HEADER:
            raise RunFolderError(f"{file} is no safetensors file; it may be cut short: fetch it again")
        header = parse_object(content.read(length), f"the header of {file}")
        if scale := (header.get("__metadata__") or {}).get("lora_adapter_metadata"):  # a LoRA's alpha
            total += int(blake2b(str(scale).encode(), digest_size=16).hexdigest(), 16)
        for name, entry in header.items():
            if name != "__metadata__":
                total += _hash_tensor(file, content, 8 + length, name, entry)
    return f"{total % (1 << 128):032x}"


def _hash_tensor(file: Path, content: IO[bytes], begin: int, name: str, entry: Any) -> int:
    digest = blake2b(digest_size=16)
    try:
        start, end = entry["data_offsets"]
        digest.update(f"{name}\0{entry['dtype']}\0{entry['shape']}\0".encode())
        content.seek(begin + start)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise RunFolderError(f"{file} is no safetensors file ({error}); fetch it again") from error
    left = end - start
    while left > 0:
        block = content.read(min(_BLOCK, left))
        if not block:
            raise RunFolderError(f"{file} is cut short; fetch it again")
        digest.update(block)
        left -= len(block)
    return int(digest.hexdigest(), 16)
