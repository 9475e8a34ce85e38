"""The one writer of LoRAs: files in the layouts of diffusers, kohya (ComfyUI, A1111) and PEFT."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor

from deradiff.errors import AnchorError, DeradiffError
from deradiff.writing import write_whole

LoraFormat = Literal["diffusers", "kohya", "peft"]
CARD = "deradiff"  # the metadata's entry
_DOWN = ".lora_A.weight"


def write_lora_file(
    state: Mapping[str, Tensor],
    component: str,
    folder: Path,
    format: LoraFormat,
    *,
    name: str,
    card: Mapping[str, Any],
    error: type[DeradiffError] = AnchorError,
) -> Path:
    """Write a LoRA with its card in the metadata; returns the file of weights.

    Args:
        state: weights in PEFT's names, ``MODULE.lora_A.weight`` and ``MODULE.lora_B.weight``; alpha is the rank, so
            that ``dW = lora_B @ lora_A``.
        component: the denoiser's name in the pipeline.
        folder: receives it; made if missing.
        format: ``diffusers`` (``pipe.load_lora_weights``), ``kohya`` (ComfyUI, A1111; alpha beside each layer) or
            ``peft`` (``PeftModel.from_pretrained``).
        name: of a kohya file, without its ending.
        card: what it is, JSON-able.
        error: kind of the error.

    Raises:
        DeradiffError: it can't be written; of the kind asked for.
    """
    if format == "peft":
        path = folder / "adapter_model.safetensors"
        write_whole(folder / "adapter_config.json", _peft_config(state), error)
        content = {f"base_model.model.{key}": value for key, value in state.items()}
    elif format == "kohya":
        path = folder / f"{name}.safetensors"
        content = _to_kohya(state, component)
    else:
        path = folder / "pytorch_lora_weights.safetensors"
        content = {f"{component}.{key}": value for key, value in state.items()}
    write_whole(path, save(content, {"format": "pt", CARD: json.dumps(dict(card))}), error)
    return path


def _to_kohya(state: Mapping[str, Tensor], component: str) -> dict[str, Tensor]:
    """kohya's names: ``lora_unet_`` or ``lora_transformer_``, dots as underscores, alpha (the rank) beside."""
    converted = convert_state_dict_to_kohya({f"unet.{name}": value for name, value in state.items()})
    prefix = "lora_unet_" if component == "unet" else f"lora_{component}_"
    return {name.replace("lora_unet_", prefix, 1): value for name, value in converted.items()}


def _peft_config(state: Mapping[str, Tensor]) -> bytes:
    ranks = {key.removesuffix(_DOWN): len(value) for key, value in state.items() if key.endswith(_DOWN)}
    largest = max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != largest}
    config = LoraConfig(
        r=largest, lora_alpha=largest, target_modules=list(ranks), rank_pattern=others, alpha_pattern=dict(others)
    )
    content = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return json.dumps(content, indent=1, sort_keys=True, default=str).encode()
