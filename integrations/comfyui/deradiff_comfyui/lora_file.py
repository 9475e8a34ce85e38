"""What ComfyUI doesn't read of LoRA files that diffusers and PEFT save: alpha, and the names of UNets' layers."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import RealignError

PEFT_UP = ".lora_B.weight"
PEFT_METADATA = "lora_adapter_metadata"
KOHYA_SUFFIXES = {".lora_A.weight": ".lora_down.weight", PEFT_UP: ".lora_up.weight", ".alpha": ".alpha"}


def add_peft_alphas(weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> dict[str, Tensor]:
    """The weights, with the alpha that PEFT keeps in the file's metadata as the tensors that ComfyUI looks for.

    Raises:
        RealignError: the metadata can't be read.
    """
    text = (metadata or {}).get(PEFT_METADATA)
    if text is None:
        return dict(weights)
    try:
        settings: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise RealignError(f"The LoRA's metadata {PEFT_METADATA} is not JSON ({error}); save the LoRA again.") from None
    alphas = {
        f"{name.removesuffix(PEFT_UP)}.alpha": torch.tensor(_alpha(name.removesuffix(PEFT_UP), up.shape[1], settings))
        for name, up in weights.items()
        if name.endswith(PEFT_UP) and f"{name.split('.')[0]}.lora_alpha" in settings
    }
    return {**weights, **alphas}


def _alpha(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """The alpha at which alpha / rank is PEFT's scale of one layer."""
    component, path = layer.split(".", 1)
    patterns = settings.get(f"{component}.alpha_pattern") or {}
    alphas = [alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path)]
    alpha = float(alphas[0] if alphas else settings[f"{component}.lora_alpha"])
    return alpha * math.sqrt(rank) if settings.get(f"{component}.use_rslora") else alpha


def peft_keys(unet_names: Mapping[str, str]) -> dict[str, str]:
    """PEFT's names of a UNet's layers, with and without the component, to ComfyUI's names of their weights.

    Args:
        unet_names: diffusers' names of parameters to ComfyUI's, as ``comfy.utils.unet_to_diffusers`` has them.
    """
    weights = {name.removesuffix(".weight"): ours for name, ours in unet_names.items() if name.endswith(".weight")}
    return {prefix + name: f"diffusion_model.{ours}" for prefix in ("unet.", "") for name, ours in weights.items()}


def rename_for_load_lora(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PEFT's names of a UNet's layers as kohya's, which are those that ComfyUI's Load LoRA knows."""
    return {_kohya_name(name): weight for name, weight in weights.items()}


def _kohya_name(name: str) -> str:
    for suffix, kohya in KOHYA_SUFFIXES.items():
        if name.startswith("unet.") and name.endswith(suffix):
            return "lora_" + name.removesuffix(suffix).replace(".", "_") + kohya
    return name
