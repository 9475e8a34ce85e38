"""Diffusion transformers whose text is read by cross attention: DiT, PixArt, Sana."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderDC,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)

from . import inputs, parts
from .inputs import COMMON, WIDTH
from .specimen import Specimen


def build_pixart(pipeline: type[DiffusionPipeline], *, sizes: bool) -> DiffusionPipeline:
    """The learned variance is an output that the pipeline throws away. Sizes are conditions at 128 only."""
    transformer = parts.seeded(
        PixArtTransformer2DModel,
        sample_size=128 if sizes else 8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=12,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        use_additional_conditions=sizes,
    )
    return parts.assemble(pipeline, transformer, scheduler=parts.ddim())


def pixart_call(n: int) -> dict[str, Any]:
    return (
        inputs.embeds(n, masked=True)
        | COMMON
        | {"use_resolution_binning": False, "prompt": None, "negative_prompt": None}
    )


def build_dit() -> DiffusionPipeline:
    """The learned variance is an output that the pipeline throws away."""
    transformer = parts.seeded(
        DiTTransformer2DModel,
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
    )
    return parts.make(DiTPipeline, transformer=transformer, vae=parts.vae(), scheduler=parts.ddim())


def dit_call(n: int) -> dict[str, Any]:
    return {"class_labels": list(range(n)), "num_inference_steps": 2, "output_type": "pt", "guidance_scale": 3.0}


def build_sana() -> DiffusionPipeline:
    transformer = parts.seeded(
        SanaTransformer2DModel,
        **parts.SMALL,
        num_layers=2,
        in_channels=4,
        out_channels=4,
        patch_size=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=8,
    )
    vae = parts.seeded(
        AutoencoderDC,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock",) * 3,
        decoder_block_types=("ResBlock",) * 3,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_qkv_multiscales=((),) * 3,
        decoder_qkv_multiscales=((),) * 3,
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )
    return parts.assemble(SanaPipeline, transformer, vae=vae)


def sana_call(n: int) -> dict[str, Any]:
    extra = {"use_resolution_binning": False, "complex_human_instruction": None, "negative_prompt": None}
    return inputs.embeds(n, masked=True) | COMMON | extra


SPECIMENS = (
    Specimen(name="dit", build=build_dit, call=dit_call, components=parts.TRANSFORMER),
    Specimen(
        name="pixart_alpha",
        build=lambda: build_pixart(PixArtAlphaPipeline, sizes=True),
        call=pixart_call,
        components=parts.TRANSFORMER,
    ),
    Specimen(
        name="pixart_sigma",
        build=lambda: build_pixart(PixArtSigmaPipeline, sizes=False),
        call=pixart_call,
        components=parts.TRANSFORMER,
    ),
    Specimen(name="sana", build=build_sana, call=sana_call, components=parts.TRANSFORMER),
)
