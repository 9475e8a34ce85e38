"""Published weights: where their files are, how they are read, and the networks built from them."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deradiff.errors import RewardError

Network = TypeVar("Network", bound=nn.Module)
Tokenize = Callable[[Sequence[str]], Mapping[str, Tensor]]


def locate_files(published: Mapping[str, str], source: str | Path | None) -> dict[str, Path]:
    """Locate the files of a model; files that aren't in the hub's cache are downloaded.

    Args:
        published: file name -> hub repository, the weights first.
        source: a folder with all files, instead of the hub; or the file of weights, beside the others.

    Returns:
        File name -> path.

    Raises:
        RewardError: a file is missing; the message names it, its repository and the remedy.
    """
    if source is None:
        return {name: _download(repo, name) for name, repo in published.items()}
    path = Path(source)
    folder = path.parent if os.path.isfile(path) else path
    files = {name: folder / name for name in published}
    if os.path.isfile(path):
        files[next(iter(published))] = path
    for name, file in files.items():
        if not os.path.isfile(file):
            raise RewardError(f"{source} lacks the file {name}; copy it there from the hub's {published[name]}")
    return files


def _download(repo: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repo, name))
    except (OSError, ValueError, HfHubHTTPError) as error:  # offline, not cached, no access, moved, disk full
        raise RewardError(
            f"the file {name} of the hub's {repo} can't be downloaded ({type(error).__name__}); download it on a "
            f"machine with a connection (hf download {repo} {name}) and set HF_HOME to that cache, or give a folder "
            "that holds it as source (NAME=/folder)"
        ) from error


def read_weights(file: Path) -> dict[str, Any]:
    """Read a .safetensors file, or a file of torch as tensors only.

    Raises:
        RewardError: the file can't be read, or would run code.
    """
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of errors
        raise RewardError(
            f"the weights {file} can't be read ({type(error).__name__}: {error}); download them again"
        ) from error


def build_network(
    build: Callable[[], Network], state: Mapping[str, Tensor], file: Path, dtype: torch.dtype, device: torch.device
) -> Network:
    """Build a network from its weights, without initialising it at random first.

    Args:
        build: constructs the network.
        state: all parameters by name; the position indices of old checkpoints are ignored.
        file: the file of weights, for error messages.
        dtype: of the parameters; scalars keep theirs, since a rounded temperature would scale every score.
        device: of the network.

    Raises:
        RewardError: a missing or unexpected parameter, or one of another shape.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    parameters = {
        name: value.to(dtype) if value.is_floating_point() and value.ndim else value
        for name, value in state.items()
        if not name.endswith("position_ids")
    }
    try:
        network.load_state_dict(parameters, assign=True)
    except RuntimeError as error:
        raise RewardError(f"the weights {file} don't fit a {type(network).__name__}: {error}") from error
    return network.eval().requires_grad_(False).to(device)


def build_linear_head(state: Mapping[str, Tensor], prefix: str, file: Path, device: torch.device) -> nn.Sequential:
    """Build the linear layers ``<prefix><index>.weight`` in sequence, in float32.

    There are no activations between them: the published predictors have these commented out.

    Raises:
        RewardError: there is no such layer.
    """
    names = [name.removesuffix(".weight") for name in state if name.startswith(prefix) and name.endswith(".weight")]
    if not names:
        raise RewardError(f"the weights {file} have no layers {prefix}*.weight; give the published file")
    layers = []
    for name in sorted(names, key=lambda name: int(name.removeprefix(prefix))):
        weight = state[f"{name}.weight"]
        layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
        layers[-1].load_state_dict({"weight": weight.float(), "bias": state[f"{name}.bias"].float()})
    return nn.Sequential(*layers).eval().requires_grad_(False).to(device)


def load_tokenizer(file: Path, pad: str, length: int, device: torch.device) -> Tokenize:
    """A function from texts to ``input_ids`` and ``attention_mask``, int64 ``[batch, length]``, truncated or padded.

    Args:
        file: a published ``tokenizer.json``.
        pad: the padding token.
        length: in tokens.
        device: of the tensors.
    """
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token=pad)

    def tokenize(texts: Sequence[str]) -> Mapping[str, Tensor]:
        encoded = fast(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}

    return tokenize
