"""The one writer of LoRAs: files in the layouts of diffusers, kohya (ComfyUI, A1111) and PEFT."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor, nn

from deradiff.compat import KOHYA_PREFIXES, kohya_prefix
from deradiff.errors import AnchorError, DeradiffError
from deradiff.writing import replacing_entries, write_whole

LoraFormat = Literal["diffusers", "kohya", "peft"]
CARD = "deradiff"  # the metadata's entry
DIFFUSERS_FILE, PEFT_FILE = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
_DOWN = ".lora_A.weight"


def check_layout(
    denoiser: nn.Module, format: str, layouts: Sequence[str], error: type[DeradiffError] = AnchorError
) -> None:
    """Check that a LoRA of a denoiser can be written in a layout.

    Args:
        denoiser: the network that the LoRA is of.
        format: the layout.
        layouts: those that there are.
        error: kind of the error.

    Raises:
        DeradiffError: an unknown layout, or kohya's where it has no names for these layers; of the kind asked for.
    """
    if format not in layouts:
        raise error(f"the format is {format!r}; expected one of {', '.join(layouts)}")
    if format == "kohya" and kohya_prefix(denoiser) is None:
        raise error(
            f"kohya's layout is written for {', '.join(KOHYA_PREFIXES)}, whose layers ComfyUI knows by it; for a "
            f"{type(denoiser).__name__} take the format diffusers"
        )


def write_lora_file(
    state: Mapping[str, Tensor],
    denoiser: nn.Module,
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
        denoiser: the network that the LoRA is of.
        component: the denoiser's name in the pipeline.
        folder: receives it; made if missing.
        format: ``diffusers`` (``pipe.load_lora_weights``), ``kohya`` (ComfyUI, A1111; alpha beside each layer) or
            ``peft`` (``PeftModel.from_pretrained``).
        name: of a kohya file, without its ending.
        card: what it is, JSON-able.
        error: kind of the error.

    Raises:
        DeradiffError: it can't be written, or not in this layout; of the kind asked for.
    """
    check_layout(denoiser, format, get_args(LoraFormat), error)
    files: dict[str, bytes] = {}
    if format == "peft":
        weights, files[PEFT_CONFIG] = PEFT_FILE, _peft_config(state)
        content = {f"base_model.model.{key}": value for key, value in state.items()}
    elif format == "kohya":
        weights = f"{name}.safetensors"
        content = _to_kohya(state, kohya_prefix(denoiser) or "")
    else:
        weights = DIFFUSERS_FILE
        content = {f"{component}.{key}": value for key, value in state.items()}
    files[weights] = save(content, {"format": "pt", CARD: json.dumps(dict(card))})
    with replacing_entries(folder, error) as part:
        for file, written in files.items():
            write_whole(part / file, written, error)
    return folder / weights


def _to_kohya(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """kohya's names: a prefix, dots as underscores, alpha (the rank) beside."""
    converted = convert_state_dict_to_kohya({f"unet.{name}": value for name, value in state.items()})
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
