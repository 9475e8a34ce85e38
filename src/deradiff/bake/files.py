"""Writing a bake: a LoRA, or a checkpoint in diffusers' layout."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from deradiff.anchor.earlier_weights import CHECKPOINT, WRITER, earlier_weights, kohya_name
from deradiff.anchor.lora_files import CARD, LoraFormat, write_lora_file
from deradiff.bake.weights import LoraUpdate
from deradiff.errors import BakeError, reason_of, shown_path
from deradiff.runs.legacy import is_legacy
from deradiff.runs.store import Store
from deradiff.writing import replacing_entries, write_whole

Format = Literal["diffusers", "kohya", "peft", "checkpoint"]


def check_folder(folder: Path, aligned: Any) -> None:
    """Check that a folder may receive a bake: it would replace what has the same names.

    Args:
        folder: of the bake; it need not exist.
        aligned: the anchor, or a mapping of several, as :func:`deradiff.realign` takes them.

    Raises:
        BakeError: it holds a run, a pipeline, a training or the anchor, or can't be written to.
    """
    if Store.exists(folder) or is_legacy(folder):
        raise BakeError(f"{shown_path(folder)} is a run; give a folder of its own for the bake, such as one inside it")
    for file, what in (("model_index.json", "a pipeline"), (CHECKPOINT, "a training and its anchor")):
        if (folder / file).exists():
            raise BakeError(f"{shown_path(folder)} holds {what}, which a bake could replace; give another folder")
    for anchor in aligned.values() if isinstance(aligned, Mapping) else [aligned]:
        if not isinstance(anchor, str | Path) or not os.path.exists(anchor):  # in hand, or on the hub
            continue
        path = Path(anchor).resolve()
        if folder.resolve() in (path, path.parent):
            raise BakeError(f"{shown_path(folder)} holds the anchor, which the bake would replace; give another folder")
    earlier = earlier_weights(folder, BakeError)
    if not earlier and Store.exists(folder.absolute().parent) and folder.is_dir() and any(folder.iterdir()):
        raise BakeError(
            f"{shown_path(folder)} is a part of the run in {shown_path(folder.parent)}; give another folder"
        )
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "no right to write" if there.is_dir() else "it is no folder"
        raise BakeError(f"can't write {shown_path(folder)} ({shown_path(there)}: {why}); give another folder")


def write_lora(
    pipe: Any,
    update: LoraUpdate,
    folder: Path,
    format: LoraFormat = "diffusers",
    *,
    card: Mapping[str, Any],
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a LoRA with its card in the metadata, in place of an earlier bake; returns the file of weights.

    Args:
        pipe: the reference pipeline.
        update: the LoRA.
        folder: receives it; made if missing.
        format: ``diffusers`` (``pipe.load_lora_weights``), ``kohya`` (ComfyUI, A1111; alpha beside each layer) or
            ``peft`` (``PeftModel.from_pretrained``).
        card: what it is, JSON-able.
        name: of a kohya file, without its ending; None takes the folder's.
        dtype: of the weights on disk.

    Raises:
        BakeError: a format that is unknown or not for this denoiser, a LoRA without layers, or a folder that can't be
            written.
    """
    if not update.layers:
        raise BakeError("the bake changes nothing (lam = 0, or an anchor that equals its reference); there is no LoRA")
    state = _factors(update, dtype)
    denoiser = pipe.components[update.component]
    with replacing_entries(folder, BakeError, earlier_weights(folder, BakeError)) as part:
        path = write_lora_file(
            state, denoiser, update.component, part, format, name=name or kohya_name(folder), card=card, error=BakeError
        )
    return folder / path.name


def write_checkpoint(pipe: Any, component: str, network: nn.Module, folder: Path, *, card: Mapping[str, Any]) -> Path:
    """Write a denoiser and its scheduler's config as a folder that ``realign`` and diffusers read; returns the folder.

    An earlier bake in it is replaced.

    Raises:
        BakeError: the folder can't be written.
    """
    model: Any = network  # a ModelMixin of diffusers
    try:
        with replacing_entries(folder, BakeError, earlier_weights(folder, BakeError)) as part:
            model.save_pretrained(part / component)
            pipe.scheduler.save_pretrained(part / "scheduler")
            write_whole(part / "deradiff.json", json.dumps({WRITER: CARD, **card}, indent=1).encode(), BakeError)
    except SafetensorError as error:  # a full disk, among others
        raise BakeError(f"can't write {shown_path(folder)} ({reason_of(error)}); give another folder") from error
    return folder


def _factors(update: LoraUpdate, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in PEFT's names; alpha is the rank, so that ``dW = lora_B @ lora_A``."""
    state: dict[str, Tensor] = {}
    for name, layer in update.layers.items():
        state[f"{name}.lora_A.weight"] = layer.down.to(dtype).contiguous()
        state[f"{name}.lora_B.weight"] = layer.up.to(dtype).contiguous()
    return state
