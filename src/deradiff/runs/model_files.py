"""The files of a model on this machine: which ones its location picks, and the dtype of what they hold."""

import os
from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from deradiff.anchor.location import Location
from deradiff.errors import ConfigError

CONFIGS = ("config.json", "scheduler_config.json", "model_index.json", "adapter_config.json")
WEIGHTS = ".safetensors"
_VARIANTS = (".fp16.", ".bf16.", ".non_ema.")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def find_local(name: str, location: Location) -> Path | None:
    """The folder or file of a model on this machine, or of a repository in the hub's local cache; None without one."""
    if not name.strip():
        return None
    try:
        path = Path(os.path.expanduser(name))  # leaves ~nobody as it is, where pathlib raises
        path = path if path.exists() else _find_cached(name, location.revision)
        inside = path and path / (location.subfolder or "") / (location.weight_name or "")
        return inside if inside and (inside.is_dir() or inside.is_file()) else None
    except (OSError, ValueError):  # too long for a path
        return None


def _find_cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub.errors import HfHubHTTPError  # takes a quarter of a second

    from deradiff.anchor.source import cached_snapshot

    try:
        return cached_snapshot(name, revision)
    except (OSError, ValueError, HfHubHTTPError):  # not in the local cache, or no hub id
        return None


def weights_and_configs(folder: Path, variant: str | None = None) -> list[Path]:
    """The weights and configs in a folder and its subfolders: of the variant where there is one, else the plain ones.

    Args:
        folder: of a pipeline or a network.
        variant: of the weights; None takes the plain ones, or the only ones there are.
    """
    folders = [folder, *(sub for sub in sorted(folder.iterdir()) if sub.is_dir())]
    pipeline = (folder / "model_index.json").is_file()
    chosen: list[Path] = []
    for subfolder in folders:
        files = [file for file in sorted(subfolder.glob("*")) if file.is_file()]
        weights = [file for file in files if file.suffix == WEIGHTS and not (pipeline and subfolder == folder)]
        of_variant = [file for file in weights if variant and f".{variant}" in file.name]
        plain = [file for file in weights if not any(other in file.name for other in _VARIANTS)]
        chosen += [*(of_variant or plain or weights), *(file for file in files if file.name in CONFIGS)]
    return chosen


def find_single_file_configs(file: Path) -> Path | None:
    """The folder of configs (``model_index.json``, ``unet/config.json``, ...) that goes with a single-file checkpoint.

    It is the folder of the file's name without its suffix, or the folder that the file lies in.
    """
    return next((one for one in (file.with_suffix(""), file.parent) if (one / "model_index.json").is_file()), None)


def read_dtype(path: Path, variant: str | None = None) -> str:
    """The dtype of most of a model's weights, from the headers of its safetensors files.

    Args:
        path: its folder or file.
        variant: of the weights.

    Raises:
        ConfigError: no safetensors there, a damaged one, or a dtype that no network runs in.
    """
    files = (
        [path] if path.is_file() else [file for file in weights_and_configs(path, variant) if file.suffix == WEIGHTS]
    )
    elements = _count_elements(files)
    if not elements:
        raise ConfigError(f"the dtype of {path} can't be read: it holds no weights in safetensors; give a dtype")
    ((stored, _),) = elements.most_common(1)
    if stored not in _DTYPES:
        raise ConfigError(f"{path} holds weights of {stored}, which no network runs in; give a dtype, such as float16")
    return _DTYPES[stored]


def _count_elements(files: Iterable[Path]) -> Counter[str]:
    """The number of floating-point elements by the name that safetensors has for their dtype."""
    elements = Counter[str]()
    for file in files:
        try:
            with safe_open(file, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (no mapping)
                    values = tensors.get_slice(name)
                    if "F" in values.get_dtype():
                        elements[values.get_dtype()] += prod(values.get_shape())
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{file} can't be read as safetensors ({error}); fetch it again") from error
    return elements
