"""Transformers of one stream, text before image: Z-Image, Lumina 2, HiDream, Kandinsky 5."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from . import inputs, parts
from .inputs import COMMON, TOKENS, WIDTH
from .specimen import Specimen


def build_z_image() -> DiffusionPipeline:
    transformer = parts.seeded(
        ZImageTransformer2DModel,
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[64, 32, 32],
    )
    return parts.assemble(ZImagePipeline, transformer)


def z_image_call(n: int) -> dict[str, Any]:
    """Prompts of different lengths, each a tensor of a list."""
    texts = {key: [row[: 3 + i] for i, row in enumerate(rows)] for key, rows in inputs.embeds(n).items()}
    return COMMON | texts


def build_lumina2() -> DiffusionPipeline:
    transformer = parts.seeded(
        Lumina2Transformer2DModel,
        sample_size=4,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(64, 16, 16),
        cap_feat_dim=WIDTH,
    )
    return parts.assemble(Lumina2Pipeline, transformer)


def build_hidream() -> DiffusionPipeline:
    transformer = parts.seeded(
        HiDreamImageTransformer2DModel,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=WIDTH,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
        force_inference_output=True,
    )
    absent = parts.absent(*(f"{kind}_{i}" for kind in ("text_encoder", "tokenizer") for i in (2, 3, 4)))
    pipe = parts.assemble(HiDreamImagePipeline, transformer, **absent)
    pipe.default_sample_size = 8  # else a small image is made larger
    return pipe


def hidream_call(n: int) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for sign in ("", "negative_"):
        given[f"{sign}prompt_embeds_t5"] = inputs.draw(f"{sign}t5", n, TOKENS, WIDTH)
        given[f"{sign}prompt_embeds_llama3"] = inputs.draw(f"{sign}llama", n, 2, TOKENS, WIDTH).transpose(0, 1)
        given[f"{sign}pooled_prompt_embeds"] = inputs.draw(f"{sign}pooled", n, WIDTH)
    return given | COMMON


def build_kandinsky5() -> DiffusionPipeline:
    transformer = parts.seeded(
        Kandinsky5Transformer3DModel,
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=8,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 2, 2),
    )
    pipe = parts.assemble(Kandinsky5T2IPipeline, transformer, **parts.absent("text_encoder_2", "tokenizer_2"))
    pipe.resolutions = [(32, 32)]  # else a small image is made larger
    return pipe


def kandinsky5_call(n: int) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for sign in ("", "negative_"):
        given[f"{sign}prompt_embeds_qwen"] = inputs.draw(f"{sign}qwen", n, TOKENS, WIDTH)
        given[f"{sign}prompt_embeds_clip"] = inputs.draw(f"{sign}clip", n, WIDTH)
        given[f"{sign}prompt_cu_seqlens"] = torch.arange(n + 1, dtype=torch.int32) * TOKENS
    return given | COMMON


SPECIMENS = (
    Specimen(name="z_image", build=build_z_image, call=z_image_call, components=parts.TRANSFORMER),
    Specimen(
        name="lumina2",
        build=build_lumina2,
        call=lambda n: inputs.embeds(n, masked=True) | COMMON,
        components=parts.TRANSFORMER,
    ),
    Specimen(name="hidream", build=build_hidream, call=hidream_call, components=parts.TRANSFORMER),
    Specimen(name="kandinsky5", build=build_kandinsky5, call=kandinsky5_call, components=parts.TRANSFORMER),
)
