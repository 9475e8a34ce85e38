"""Networks that learn the variance, and DDPM without text: Kandinsky 2.2, DeepFloyd IF."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    IFPipeline,
    KandinskyV22Pipeline,
    UNet2DModel,
    VQModel,
)

from . import inputs, parts
from .inputs import TOKENS, WIDTH
from .specimen import Specimen
from .stable_diffusion import STEPS


def build_kandinsky() -> DiffusionPipeline:
    """A network that learns the variance, which its DDPM scheduler uses."""
    unet = parts.unet(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
        cross_attention_dim=WIDTH,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )
    movq = parts.seeded(
        VQModel,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=4,
        num_vq_embeddings=4,
    )
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    return parts.make(KandinskyV22Pipeline, unet=unet, scheduler=scheduler, movq=movq)


def kandinsky_call(n: int) -> dict[str, Any]:
    signs = ("image_embeds", "negative_image_embeds")
    return STEPS | {sign: inputs.draw(sign, n, WIDTH) for sign in signs} | {"height": 32, "width": 32}


def build_deepfloyd() -> DiffusionPipeline:
    """Pixels, and a learned variance."""
    unet = parts.unet(in_channels=3, out_channels=6, resnet_time_scale_shift="scale_shift")
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    return parts.make(
        IFPipeline,
        unet=unet,
        scheduler=scheduler,
        requires_safety_checker=False,
        **parts.absent("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker"),
    )


def deepfloyd_call(n: int) -> dict[str, Any]:
    signs = ("prompt_embeds", "negative_prompt_embeds")
    return STEPS | {sign: inputs.draw(sign, n, TOKENS, WIDTH) for sign in signs} | {"output_type": "pt"}


def build_ddpm() -> DiffusionPipeline:
    unet = parts.seeded(
        UNet2DModel,
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return parts.make(DDPMPipeline, unet=unet, scheduler=DDPMScheduler())


SPECIMENS = (
    Specimen(name="kandinsky", build=build_kandinsky, call=kandinsky_call),
    Specimen(name="deepfloyd", build=build_deepfloyd, call=deepfloyd_call),
    Specimen(
        name="ddpm",
        build=build_ddpm,
        call=lambda n: {"batch_size": n, "num_inference_steps": 3, "output_type": "pt"},
    ),
)
