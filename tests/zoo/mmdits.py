"""Transformers of two streams, text and image: SD3, AuraFlow, CogView4, Qwen-Image."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKLQwenImage,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Pipeline,
)

from . import inputs, parts
from .inputs import COMMON, WIDTH
from .specimen import Specimen


def sd3_transformer(head: int = 8) -> SD3Transformer2DModel:
    """Of two heads, ``head`` wide."""
    return parts.seeded(
        SD3Transformer2DModel,
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=head,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=2 * head,
        pooled_projection_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )


def build_sd3() -> DiffusionPipeline:
    transformer = sd3_transformer()
    absent = parts.absent("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    return parts.assemble(StableDiffusion3Pipeline, transformer, **absent)


def build_sd3_controlnet() -> DiffusionPipeline:
    shape: dict[str, Any] = parts.SMALL | {
        "sample_size": 8,
        "patch_size": 1,
        "in_channels": 4,
        "num_layers": 1,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": WIDTH,
        "out_channels": 4,
        "pos_embed_max_size": 8,
    }
    absent = parts.absent("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    return parts.assemble(
        StableDiffusion3ControlNetPipeline,
        parts.seeded(SD3Transformer2DModel, **shape),
        controlnet=parts.seeded(SD3ControlNetModel, **shape, seed=3),
        **absent,
    )


def sd3_controlnet_call(n: int) -> dict[str, Any]:
    return inputs.embeds(n, pooled=True) | COMMON | {"control_image": inputs.picture("edges", n)}


def build_auraflow() -> DiffusionPipeline:
    transformer = parts.seeded(
        AuraFlowTransformer2DModel,
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=16,
    )
    return parts.assemble(AuraFlowPipeline, transformer)


def build_cogview4() -> DiffusionPipeline:
    transformer = parts.seeded(
        CogView4Transformer2DModel,
        **parts.SMALL,
        num_layers=2,
        in_channels=4,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return parts.assemble(CogView4Pipeline, transformer, scheduler=scheduler)


def build_qwen() -> DiffusionPipeline:
    transformer = parts.seeded(
        QwenImageTransformer2DModel,
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae = parts.seeded(
        AutoencoderKLQwenImage,
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return parts.assemble(QwenImagePipeline, transformer, vae=vae)


def qwen_call(n: int) -> dict[str, Any]:
    masks = {"prompt_embeds_mask": inputs.mask(n), "negative_prompt_embeds_mask": inputs.mask(n)}
    return inputs.embeds(n) | COMMON | masks | {"true_cfg_scale": 3.0}


SPECIMENS = (
    Specimen(
        name="sd3", build=build_sd3, call=lambda n: inputs.embeds(n, pooled=True) | COMMON, components=parts.TRANSFORMER
    ),
    Specimen(name="sd3_controlnet", build=build_sd3_controlnet, call=sd3_controlnet_call, components=parts.TRANSFORMER),
    Specimen(
        name="auraflow",
        build=build_auraflow,
        call=lambda n: inputs.embeds(n, masked=True) | COMMON,
        components=parts.TRANSFORMER,
    ),
    Specimen(
        name="cogview4", build=build_cogview4, call=lambda n: inputs.embeds(n) | COMMON, components=parts.TRANSFORMER
    ),
    Specimen(name="qwen_image", build=build_qwen, call=qwen_call, components=parts.TRANSFORMER),
)
