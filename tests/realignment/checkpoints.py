"""Anchors on disk, sound and unsound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tests.zoo import anchor_of, parts

from . import loras
from .pipelines import known, replaced

WEIGHTS = "diffusion_pytorch_model.safetensors"


def whole(folder: Path) -> Path:
    """A pipeline folder with the anchor as its UNet."""
    it = known("sd")
    with replaced(it.pipe, it.anchors):
        it.pipe.save_pretrained(folder)
    return folder


def denoiser(folder: Path) -> Path:
    known("sd").anchors["unet"].save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    return folder


def subfolder(folder: Path) -> Path:
    denoiser(folder / "unet")
    return folder


def half(folder: Path) -> Path:
    module = anchor_of(known("sd").pipe.unet).half()
    module.save_pretrained(folder / "unet", variant="fp16")  # pyright: ignore[reportCallIssue]
    return folder


def schedule(**config: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        scheduler: Any = DDIMScheduler.from_config(known("sd").pipe.scheduler.config, **config)
        scheduler.save_pretrained(folder / "scheduler")
        return subfolder(folder)

    return make


def other_shape(folder: Path) -> Path:
    bigger = StableDiffusionPipeline(**{**known("sd").pipe.components, "unet": wide()}, requires_safety_checker=False)
    return loras.save(bigger, "unet", folder)


def wide() -> object:
    return parts.unet(block_out_channels=(16, 32))


def another_architecture(folder: Path) -> Path:
    wide().save_pretrained(folder)  # pyright: ignore[reportAttributeAccessIssue]
    return folder


def another_class(folder: Path) -> Path:
    known("sd3").anchors["transformer"].save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    return folder


def pickle_folder(folder: Path) -> Path:
    module = known("sd").anchors["unet"]
    module.save_pretrained(folder / "unet", safe_serialization=False)  # pyright: ignore[reportCallIssue]
    return folder


def pickled_lora(folder: Path) -> Path:
    torch.save({}, folder / "pytorch_lora_weights.bin")
    return folder


def pickle_file(folder: Path) -> Path:
    torch.save({}, folder / "lora.ckpt")
    return folder / "lora.ckpt"


def truncated(folder: Path) -> Path:
    file = denoiser(folder) / WEIGHTS
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


def incomplete(folder: Path) -> Path:
    file = denoiser(folder) / WEIGHTS
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if name != "conv_out.weight"}, file)
    return folder


def truncated_lora(folder: Path) -> Path:
    file = loras.save(known("sd").pipe, "unet", folder) / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    return folder


def text_lora(folder: Path) -> Path:
    pipe = known("sd").pipe
    unet = loras.weights(pipe.unet)
    text = {f"text_model.encoder.layers.0.self_attn.q_proj.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    pipe.save_lora_weights(folder, unet_lora_layers=unet, text_encoder_lora_layers=text)
    return folder


def text_only_lora(folder: Path) -> Path:
    save_file({"text_encoder.layers.0.lora_A.weight": torch.ones(2, 2)}, folder / "pytorch_lora_weights.safetensors")
    return folder


def no_lora(folder: Path) -> Path:
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    return folder


def wrong_card(folder: Path) -> Path:
    (subfolder(folder) / "unet" / "config.json").write_text(json.dumps({"_class_name": "Other"}))
    return folder
