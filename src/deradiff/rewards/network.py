"""Networks filled with weights that fit exactly, heads of linear layers, tokenizers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deradiff.errors import RewardError

Network = TypeVar("Network", bound=nn.Module)
Tokenize = Callable[[Sequence[str]], Mapping[str, Tensor]]


def filled(
    build: Callable[[], Network], state: Mapping[str, Tensor], file: Path, dtype: torch.dtype, device: torch.device
) -> Network:
    """A network with given weights, without the time and memory of random ones.

    Args:
        build: makes the network.
        state: all its parameters by name, (...); the indices of positions that old checkpoints carry are passed over.
        file: the weights' file, for errors.
        dtype: of the parameters; lone numbers stay as they are, since a rounded temperature scales every score.
        device: where it will run.

    Raises:
        RewardError: a parameter too few, too many or of another shape.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    given = {
        name: value.to(dtype) if value.is_floating_point() and value.ndim else value
        for name, value in state.items()
        if not name.endswith("position_ids")
    }
    try:
        network.load_state_dict(given, assign=True)
    except RuntimeError as error:
        raise RewardError(f"the weights {file} don't fit a {type(network).__name__}: {error}") from error
    return network.eval().requires_grad_(False).to(device)


def linear_head(state: Mapping[str, Tensor], prefix: str, file: Path, device: torch.device) -> nn.Sequential:
    """Linear layers ``<prefix><index>.weight`` one after the other, in float32.

    There is no activation between them: the published predictors have it commented out, and dropout does nothing when
    scoring.

    Raises:
        RewardError: no such layer.
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


def tokenizer(file: Path, pad: str, length: int, device: torch.device) -> Tokenize:
    """From texts to ``input_ids`` and ``attention_mask`` (N, length), cut or padded.

    Args:
        file: a published ``tokenizer.json``.
        pad: the token to pad with.
        length: of each text, in tokens.
        device: where they will be read.
    """
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token=pad)

    def tokenize(texts: Sequence[str]) -> Mapping[str, Tensor]:
        told = fast(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return {name: told[name].to(device) for name in ("input_ids", "attention_mask")}

    return tokenize
