"""Writing a bake: a LoRA, or a checkpoint in diffusers' layout."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from deradiff.anchor.lora_files import LoraFormat, write_lora_file
from deradiff.bake.weights import LoraUpdate
from deradiff.errors import BakeError
from deradiff.writing import write_whole

Format = Literal["diffusers", "kohya", "peft", "checkpoint"]


def write_lora(
    pipe: Any,
    update: LoraUpdate,
    folder: Path,
    format: LoraFormat = "diffusers",
    *,
    card: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a LoRA with its card in the metadata; returns the file of weights.

    Args:
        pipe: the reference pipeline, whose class gives diffusers' names.
        update: the LoRA.
        folder: receives it; made if missing.
        format: ``diffusers`` (``pipe.load_lora_weights``), ``kohya`` (ComfyUI, A1111; alpha beside each layer) or
            ``peft`` (``PeftModel.from_pretrained``).
        card: what it is, JSON-able.
        dtype: of the weights on disk.

    Raises:
        BakeError: an unknown format, a LoRA without layers, or a folder that can't be written.
    """
    if format not in get_args(LoraFormat):
        raise BakeError(f"the format is {format!r}; expected one of {', '.join(get_args(LoraFormat))}")
    if not update.layers:
        raise BakeError("the bake changes nothing (lam = 0, or an anchor that equals its reference); there is no LoRA")
    state = _factors(update, dtype)
    return write_lora_file(state, update.component, folder, format, name=folder.name, card=card, error=BakeError)


def write_checkpoint(pipe: Any, component: str, network: nn.Module, folder: Path, *, card: Mapping[str, Any]) -> Path:
    """Write a denoiser and its scheduler's config as a folder that ``realign`` and diffusers read; returns the folder.

    Raises:
        BakeError: the folder can't be written.
    """
    model: Any = network  # a ModelMixin of diffusers
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".writing") as temporary:
            model.save_pretrained(Path(temporary) / component)
            pipe.scheduler.save_pretrained(Path(temporary) / "scheduler")
            for name in (component, "scheduler"):
                if (folder / name).exists():
                    shutil.rmtree(folder / name)
                (Path(temporary) / name).replace(folder / name)
    except OSError as error:
        raise BakeError(f"can't write {folder} ({error.strerror or error}); give another folder") from error
    write_whole(folder / "deradiff.json", json.dumps(dict(card), indent=1).encode(), BakeError)
    return folder


def _factors(update: LoraUpdate, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in PEFT's names; alpha is the rank, so that ``dW = lora_B @ lora_A``."""
    state: dict[str, Tensor] = {}
    for name, layer in update.layers.items():
        state[f"{name}.lora_A.weight"] = layer.down.to(dtype).contiguous()
        state[f"{name}.lora_B.weight"] = layer.up.to(dtype).contiguous()
    return state
