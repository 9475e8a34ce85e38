"""What a model is, whatever it is called: a hash of the content of its weights and configs.

Weights are hashed by their tensors (name, dtype, shape, bytes), so that the same tensors in another file, with other
metadata or in shards, are the same model. Hashing gigabytes takes seconds, so hashes of files are kept in the user's
cache by path, size and time of change.
"""

import json
import os
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from deradiff.anchor.location import Location
from deradiff.errors import DeradiffError, RunFolderError
from deradiff.reading import exists, open_regular, parse_object, read_errors, read_object
from deradiff.runs.model_files import WEIGHTS, find_local, find_single_file_configs, weights_and_configs
from deradiff.runs.recipe import Recipe
from deradiff.testbed import resolve_anchor, resolve_model
from deradiff.writing import write_whole

_BLOCK = 1 << 22
_HASH = re.compile("[0-9a-f]{32}")
_CACHE = "hashes-1.json"  # another number for every change of how files are hashed
_LARGEST_HEADER = 100 << 20  # bytes, safetensors' own limit


def fingerprint(name: str, location: Location | None = None) -> str | None:
    """The hash of a model on this machine: a folder, a file, or a hub id in the local cache; None where there is none.

    Args:
        name: folder, file or hub id.
        location: where in it the model lies.

    Raises:
        RunFolderError: a file of it can't be read.
    """
    location = location or Location()
    path = find_local(name, location)
    return None if path is None else _hash_files(path, location, None)


def model_fingerprint(name: str, location: Location | None = None) -> str | None:
    """The hash of a pipeline, as :func:`fingerprint`; of a single-file checkpoint with the configs that go with it."""
    location = location or Location()
    path = find_local(name, location)
    return None if path is None else _hash_files(path, location, find_single_file_configs(path))


def _hash_files(path: Path, location: Location, configs: Path | None) -> str | None:
    """The hash of a folder's or a file's weights and configs, and of the configs in another folder."""
    if path.is_file() and path.suffix != WEIGHTS:  # which no model is read from
        return None
    sums: dict[str, int] = {}
    known = _Known()
    files = dict.fromkeys([path] if path.is_file() else weights_and_configs(path, location.variant), path)
    if path.is_file() and configs is not None:
        files |= {file: configs for file in weights_and_configs(configs) if file.suffix != WEIGHTS}
    for file, root in files.items():
        part = "" if file == path else file.parent.relative_to(root).as_posix()
        entry = f"{part}/{'weights' if file.suffix == WEIGHTS else file.name}"
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
        "model_hash": model_fingerprint(resolve_model(recipe.model), recipe.model_location),
        "anchor_hash": fingerprint(resolve_anchor(recipe.anchor), recipe.anchor_location),
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
                known = self._hashes[key] = _hash_tensors(file) if file.suffix == WEIGHTS else _hash_config(file)
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
