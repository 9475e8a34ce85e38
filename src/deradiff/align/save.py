"""An anchor on disk: a LoRA or a checkpoint that plain diffusers loads, with its card."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deradiff.align.files import told
from deradiff.align.policy import NAME, Policy

_LORA = "pytorch_lora_weights.safetensors"


def save_anchor(pipe: Any, component: str, policy: Policy, folder: Path, card: dict[str, Any]) -> None:
    """Write what was trained into a folder, whole or not at all.

    Args:
        pipe: the pipeline, whose class knows the layout of its LoRAs.
        component: name of the denoiser.
        policy: what was trained.
        folder: of the anchor; its weights and card are replaced.
        card: what the anchor says of itself, JSON-able: a LoRA's metadata ``deradiff``, a checkpoint's deradiff.json.

    Raises:
        AlignError: it can't be written.
    """
    with told(folder):
        beside = folder / ".writing"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        if policy.config is None:
            policy.denoiser.save_pretrained(beside / component)
            pipe.scheduler.save_pretrained(beside / "scheduler")
            (beside / "deradiff.json").write_text(json.dumps(card, indent=1))
        else:
            _save_lora(pipe, component, policy, beside, card)
        for weights in beside.rglob("*.safetensors"):  # the library makes them their owner's alone
            weights.chmod(beside.stat().st_mode & 0o666)
        for made in sorted(beside.iterdir()):
            target = folder / made.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(made, target)
        beside.rmdir()


def _save_lora(pipe: Any, component: str, policy: Policy, folder: Path, card: dict[str, Any]) -> None:
    layers = get_peft_model_state_dict(policy.denoiser, adapter_name=NAME)
    given: dict[str, Any] = {
        f"{component}_lora_layers": {name: layer.contiguous().cpu() for name, layer in layers.items()},
        f"{component}_lora_adapter_metadata": policy.config.to_dict() if policy.config else None,
    }
    type(pipe).save_lora_weights(folder, **given)
    path = folder / _LORA
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"deradiff": json.dumps(card)}
    save_file(load_file(path), path, metadata)
