"""Loads LoRAs as ComfyUI does, by its own code; run by a Python that imports comfy.lora, in ComfyUI's checkout.

Usage: python patch_models.py < JOBS > RESULTS

JOBS is a JSON list of ``{"model", "config", "lora"}``: a class of comfy.supported_models, its unet_config, and a LoRA
file. RESULTS is a list of ``{"messages", "norms"}``: what ComfyUI complained of, and the norm of each change that it
made to a weight, by the layer's name in the file. Models have no weights (device "meta"), so they may be of any size.
"""

# pyright: reportMissingImports=false

import json
import logging
import sys
from typing import Any

sys.path.insert(0, ".")
import comfy.cli_args

comfy.cli_args.args.cpu = True  # what the other modules of comfy ask when they are imported

import comfy.lora  # noqa: E402
import comfy.lora_convert  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402


class Messages(logging.Handler):
    """Keeps warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def patch(model: str, config: dict[str, Any], lora: str) -> dict[str, Any]:
    """What comfy.sd.load_lora_for_models and a ModelPatcher do, on weights of zero."""
    network = getattr(comfy.supported_models, model)(config).get_model({}, device="meta")
    shapes = {name: weight.shape for name, weight in network.state_dict().items()}
    messages = Messages()
    logging.getLogger().addHandler(messages)
    try:
        keys = comfy.lora.model_lora_keys_unet(network, {})
        state = comfy.lora_convert.convert_lora(load_file(lora))
        patches = comfy.lora.load_lora(state, keys)
        norms = {}
        for name in (name for name in keys if f"{name}.lora_up.weight" in state):
            key, offset, change = keys[name], None, None
            if not isinstance(key, str):  # a part of a fused weight, or one whose halves change places
                key, offset, change = (*key, None)[:3]
            weight = torch.zeros(shapes[key])
            patched = comfy.lora.calculate_weight([(1.0, patches[keys[name]], 1.0, offset, change)], weight, key)
            norms[name] = float(patched.norm())
    finally:
        logging.getLogger().removeHandler(messages)
    return {"messages": messages.texts, "norms": norms}


if __name__ == "__main__":
    json.dump([patch(**job) for job in json.load(sys.stdin)], sys.stdout)
