"""Random LoRAs, in the files and forms in which users have them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

ATTENTION = ("to_q", "to_k", "to_v")


def add(denoiser: nn.Module, name: str, targets: Any = ATTENTION, *, seed: int = 3, rank: int = 2) -> None:
    """Puts a LoRA that changes the output on a denoiser, and makes it the active one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser.add_adapter(  # pyright: ignore[reportCallIssue]
            LoraConfig(r=rank, target_modules=targets, init_lora_weights="gaussian"), adapter_name=name
        )
        for path, parameter in denoiser.named_parameters():
            if f"lora_B.{name}" in path:
                nn.init.normal_(parameter, std=0.1)


def linear_layers(denoiser: nn.Module) -> list[str]:
    """Every linear layer, so that a mixed batch is tried on all inputs of a network."""
    return [path for path, module in denoiser.named_modules() if type(module) is nn.Linear]


def weights(denoiser: nn.Module, targets: Any = ATTENTION, *, seed: int = 3, rank: int = 2) -> dict[str, Tensor]:
    """Weights of a random LoRA under PEFT's names, leaving the denoiser alone."""
    trained = copy.deepcopy(denoiser)
    add(trained, "default_", targets, seed=seed, rank=rank)
    return get_peft_model_state_dict(trained, adapter_name="default_")


def save(pipe: Any, component: str, folder: Path, targets: Any = ATTENTION, *, seed: int = 3, rank: int = 2) -> Path:
    """Saves a random LoRA as diffusers' training scripts do."""
    layers = weights(getattr(pipe, component), targets, seed=seed, rank=rank)
    if component == "unet":
        layers = convert_state_dict_to_diffusers(layers)
    pipe.save_lora_weights(folder, **{f"{component}_lora_layers": layers})
    return folder
