"""Wan with one and with two transformers, and AnyFlow, which makes a video chunk by chunk."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnyFlowFARPipeline,
    AnyFlowFARTransformer3DModel,
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMapEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch.nn.attention import flex_attention

from . import inputs, parts
from .inputs import COMMON, TOKENS, WIDTH
from .specimen import Specimen

# AnyFlow's attention: the same operations, without compiling them anew for each shape
flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True


def wan_transformer(seed: int = 0) -> WanTransformer3DModel:
    return parts.seeded(
        WanTransformer3DModel,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        seed=seed,
    )


def wan_vae() -> AutoencoderKLWan:
    return parts.seeded(
        AutoencoderKLWan,
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def build_wan(*, two: bool) -> DiffusionPipeline:
    """Wan 2.2 hands over from the network of the high noise to that of the low noise at half the way."""
    return parts.assemble(
        WanPipeline,
        wan_transformer(),
        transformer_2=wan_transformer(7) if two else None,
        vae=wan_vae(),
        boundary_ratio=0.75 if two else None,
    )


def wan_call(n: int) -> dict[str, Any]:
    signs = ("prompt_embeds", "negative_prompt_embeds")
    return COMMON | {"num_frames": 5, "guidance_scale": 3.0} | {s: inputs.draw(s, n, TOKENS, WIDTH) for s in signs}


def build_anyflow() -> DiffusionPipeline:
    """The chunks of a video come one after the other; the keys and values of the earlier are written in place."""
    transformer = parts.seeded(
        AnyFlowFARTransformer3DModel,
        full_chunk_limit=2,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        chunk_partition=(1, 1, 1),
    )
    return parts.assemble(AnyFlowFARPipeline, transformer, scheduler=FlowMapEulerDiscreteScheduler(), vae=wan_vae())


def anyflow_call(n: int) -> dict[str, Any]:
    video = {"num_frames": 9, "guidance_scale": 2.0, "num_inference_steps": 2}
    return inputs.embeds(n) | COMMON | video


SPECIMENS = (
    Specimen(name="wan", build=lambda: build_wan(two=False), call=wan_call, components=parts.TRANSFORMER),
    Specimen(
        name="wan_2_2", build=lambda: build_wan(two=True), call=wan_call, components=("transformer", "transformer_2")
    ),
    Specimen(name="anyflow_far", build=build_anyflow, call=anyflow_call, components=parts.TRANSFORMER),
)
