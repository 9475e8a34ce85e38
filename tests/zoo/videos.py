"""Video by transformers: LTX, CogVideoX."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from . import inputs, parts
from .inputs import TOKENS, WIDTH
from .specimen import Specimen
from .stable_diffusion import SIZE, STEPS


def build_ltx() -> DiffusionPipeline:
    transformer = parts.seeded(
        LTXVideoTransformer3DModel,
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=WIDTH,
    )
    vae = parts.seeded(
        AutoencoderKLLTXVideo,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
    )
    return parts.assemble(LTXPipeline, transformer, vae=vae)


def ltx_call(n: int) -> dict[str, Any]:
    return inputs.embeds(n, masked=True) | STEPS | SIZE | {"num_frames": 9}


def build_cogvideox() -> DiffusionPipeline:
    transformer = parts.seeded(
        CogVideoXTransformer3DModel,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        patch_size=2,
        max_text_seq_length=TOKENS,
    )
    vae = parts.seeded(
        AutoencoderKLCogVideoX,
        latent_channels=4,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
    )
    scheduler = parts.ddim(prediction_type="v_prediction")
    return parts.assemble(CogVideoXPipeline, transformer, vae=vae, scheduler=scheduler)


def cogvideox_call(n: int) -> dict[str, Any]:
    extra = {"num_frames": 5, "max_sequence_length": TOKENS, "guidance_scale": 3.0}
    return inputs.embeds(n) | STEPS | SIZE | extra


SPECIMENS = (
    Specimen(name="ltx", build=build_ltx, call=ltx_call, components=parts.TRANSFORMER),
    Specimen(name="cogvideox", build=build_cogvideox, call=cogvideox_call, components=parts.TRANSFORMER),
)
