"""Networks with state between steps: caches of keys and values, returned or filled in place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from PIL import Image

from . import inputs, parts
from .flux import build_flux2
from .inputs import COMMON, WIDTH
from .specimen import Specimen


def klein_call(n: int) -> dict[str, Any]:
    """The first step sees an image to edit, and returns the cache of its keys and values for the others."""
    image = Image.new("RGB", (64, 64), (200, 90, 30))
    return inputs.embeds(n, negative=False) | COMMON | {"image": image}


class Processor:
    """What the pipeline asks of its processor when it is made: the lengths of its templates."""

    tokenizer = SimpleNamespace(encode=lambda _: [0])

    def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
        return [[0]]


def build_qwen21() -> DiffusionPipeline:
    """The pipeline makes two caches, with and without the prompt, which the network fills in the first step."""
    transformer = parts.seeded(
        QwenImage21Transformer2DModel,
        in_channels=8,
        out_channels=8,
        context_in_dim=WIDTH,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        axes_dims_rope=(4, 2, 2),
    )
    vae = parts.seeded(
        AutoencoderKLQwenImage21,
        base_dim=4,
        decoder_base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    return parts.make(
        QwenImage21Pipeline,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=None,
        processor=Processor(),
    )


def qwen21_call(n: int) -> dict[str, Any]:
    return inputs.embeds(n) | COMMON | {"true_cfg_scale": 3.0, "height": 64, "width": 64}


def build_glm() -> DiffusionPipeline:
    """The network writes to a cache when it is shown the image to edit, before the first step."""
    transformer = parts.seeded(
        GlmImageTransformer2DModel,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=16,
    )
    vae = parts.vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    absent = parts.absent("processor", "vision_language_encoder")
    return parts.assemble(GlmImagePipeline, transformer, vae=vae, **absent)


def glm_call(n: int) -> dict[str, Any]:
    """An image to edit each, of 16 tokens, as the image to make."""
    tokens = torch.arange(16) % 7
    return (
        inputs.embeds(n)
        | COMMON
        | {
            "image": [[Image.new("RGB", (32, 32), (60 * i, 90, 30))] for i in range(n)],
            "prior_token_ids": tokens.expand(n, -1),
            "prior_token_image_ids": [tokens] * n,
            "source_image_grid_thw": [torch.tensor([[1, 4, 4]])] * n,
            "guidance_scale": 2.0,
        }
    )


SPECIMENS = (
    Specimen(
        name="flux2_klein_kv",
        build=lambda: build_flux2(Flux2KleinKVPipeline),
        call=klein_call,
        components=parts.TRANSFORMER,
    ),
    Specimen(name="qwen_image_21", build=build_qwen21, call=qwen21_call, components=parts.TRANSFORMER),
    Specimen(name="glm_image", build=build_glm, call=glm_call, components=parts.TRANSFORMER),
)
