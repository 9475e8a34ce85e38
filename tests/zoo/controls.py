"""Stable Diffusion under control: ControlNet, T2I-Adapter, perturbed attention, IP-Adapter."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
)
from torch import Tensor

from . import inputs, parts
from .inputs import WIDTH
from .specimen import Specimen
from .stable_diffusion import components, text_call

IMAGE_WIDTH = 12


def controlnet(seed: int) -> ControlNetModel:
    return parts.seeded(
        ControlNetModel,
        seed=seed,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 4, 8),
    )


def build_controlnet(*seeds: int) -> DiffusionPipeline:
    nets = [controlnet(seed) for seed in seeds]
    control = nets if len(nets) > 1 else nets[0]
    return parts.make(StableDiffusionControlNetPipeline, controlnet=control, **components())


def controlnet_call(n: int) -> dict[str, Any]:
    return text_call(n) | {"image": inputs.picture("edges", n), "controlnet_conditioning_scale": 0.8}


def multicontrolnet_call(n: int) -> dict[str, Any]:
    images = [inputs.picture("edges", n), inputs.picture("depth", n)]
    return text_call(n) | {"image": images, "controlnet_conditioning_scale": [0.8, 0.5]}


def build_t2i_adapter() -> DiffusionPipeline:
    """The UNet pops the adapter's residuals off the list that it is given."""
    adapter = parts.seeded(T2IAdapter, channels=[8, 16], num_res_blocks=1, downscale_factor=4)
    return parts.make(StableDiffusionAdapterPipeline, adapter=adapter, **components())


def build_ip_adapter() -> DiffusionPipeline:
    """Weights of an IP-Adapter in the layout of its checkpoints, read by the pipeline's own loader."""
    pipe: Any = parts.make(StableDiffusionPipeline, **components())
    pipe.load_ip_adapter(ip_adapter_weights(pipe.unet), subfolder="", weight_name="", image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.7)
    return pipe


def ip_adapter_weights(unet: Any) -> dict[str, dict[str, Tensor]]:
    """Keys and values of the image's four tokens at every cross attention, numbered 1, 3, 5, …"""
    projection = {
        "proj.weight": inputs.draw("proj", 4 * WIDTH, IMAGE_WIDTH) / 4,
        "proj.bias": torch.zeros(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
    }
    attention: dict[str, Tensor] = {}
    crossed = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for index, name in enumerate(crossed):
        key = unet.get_submodule(name.removesuffix(".processor")).to_k
        for kind in ("to_k_ip", "to_v_ip"):
            attention[f"{2 * index + 1}.{kind}.weight"] = inputs.draw(f"{kind}{index}", *key.weight.shape) / 4
    return {"image_proj": projection, "ip_adapter": attention}


def ip_adapter_call(n: int) -> dict[str, Any]:
    """One image for all prompts, after its negative: the pipeline repeats both."""
    embeds = inputs.draw("image", 1, 1, IMAGE_WIDTH)
    return text_call(n) | {"ip_adapter_image_embeds": [torch.cat([torch.zeros_like(embeds), embeds])]}


SPECIMENS = (
    Specimen(name="sd_controlnet", build=lambda: build_controlnet(3), call=controlnet_call, prompts=True),
    Specimen(name="sd_multicontrolnet", build=lambda: build_controlnet(3, 4), call=multicontrolnet_call, prompts=True),
    Specimen(
        name="sd_t2i_adapter",
        build=build_t2i_adapter,
        prompts=True,
        call=lambda n: text_call(n) | {"image": inputs.picture("edges", n)},
    ),
    Specimen(
        name="sd_pag",
        build=lambda: parts.make(StableDiffusionPAGPipeline, **components(), pag_applied_layers="mid"),
        call=lambda n: text_call(n) | {"pag_scale": 2.0},
        prompts=True,
    ),
    Specimen(name="sd_ip_adapter", build=build_ip_adapter, call=ip_adapter_call, prompts=True),
)
