"""The files of a published model: in a local folder, or from the hub by their real ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deradiff.errors import RewardError


def locate(published: Mapping[str, str], source: str | Path | None) -> dict[str, Path]:
    """Where each file of a model lies; what isn't in the hub's cache is downloaded.

    Args:
        published: file name -> hub repository, the weights first.
        source: a folder that holds all the files, instead of the hub; or the weights' file, next to the others.

    Raises:
        RewardError: a file is missing; names it, its repository and what to do.
    """
    if source is None:
        return {name: _download(repo, name) for name, repo in published.items()}
    given = Path(source)
    folder = given.parent if given.is_file() else given
    found = {name: folder / name for name in published}
    if given.is_file():
        found[next(iter(published))] = given
    for name, file in found.items():
        if not file.is_file():
            raise RewardError(f"{source} lacks the file {name}; copy it there from the hub's {published[name]}")
    return found


def _download(repo: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repo, name))
    except (OSError, ValueError, HfHubHTTPError) as error:  # offline, not cached, refused, moved, disk full
        raise RewardError(
            f"the file {name} of the hub's {repo} can't be had ({type(error).__name__}); download it on a machine with "
            f"a connection (hf download {repo} {name}) and set HF_HOME to that cache, or give a folder that holds it "
            f"as source (NAME=/folder)"
        ) from error


def read_weights(file: Path) -> dict[str, Any]:
    """What a .safetensors file holds, or a file of torch's; one that would run code when read is refused.

    Raises:
        RewardError: it can't be read.
    """
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a torn or foreign file makes the readers raise
        raise RewardError(
            f"the weights {file} can't be read ({type(error).__name__}: {error}); download them again"
        ) from error
