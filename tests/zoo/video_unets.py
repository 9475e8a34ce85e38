"""Video by UNets: AnimateDiff, text to video, Stable Video Diffusion."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLTemporalDecoder,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    MotionAdapter,
    StableVideoDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from . import inputs, parts
from .inputs import WIDTH
from .specimen import Specimen
from .stable_diffusion import SIZE, STEPS

FRAMES: dict[str, Any] = {"num_frames": 3}


def build_animatediff() -> DiffusionPipeline:
    """The pipeline weaves a motion adapter into the UNet that it is given."""
    adapter = parts.seeded(
        MotionAdapter,
        seed=3,
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=8,
        use_motion_mid_block=False,
    )
    return parts.make(
        AnimateDiffPipeline,
        unet=parts.unet(attention_head_dim=4),
        motion_adapter=adapter,
        scheduler=parts.ddim(),
        vae=parts.vae(),
        text_encoder=parts.clip_text(),
        tokenizer=parts.tokenizer(),
    )


def build_text_to_video() -> DiffusionPipeline:
    unet = parts.seeded(
        UNet3DConditionModel,
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    )
    return parts.make(
        TextToVideoSDPipeline,
        unet=unet,
        scheduler=parts.ddim(),
        vae=parts.vae(),
        text_encoder=parts.clip_text(),
        tokenizer=parts.tokenizer(),
    )


def video_call(n: int) -> dict[str, Any]:
    return {"prompt": inputs.prompts(n), "guidance_scale": 3.0} | STEPS | SIZE | FRAMES


def build_svd() -> DiffusionPipeline:
    """An image to a video, in v-prediction, with a guidance that grows over the frames."""
    unet = parts.seeded(
        UNetSpatioTemporalConditionModel,
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        num_attention_heads=(2, 2),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )
    vae = parts.seeded(
        AutoencoderKLTemporalDecoder,
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
    )
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        image_size=16,
        projection_dim=WIDTH,
        num_attention_heads=2,
        num_hidden_layers=1,
        patch_size=8,
        intermediate_size=32,
    )
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_type="continuous",
        sigma_max=20.0,
        sigma_min=0.002,
        timestep_spacing="leading",
        use_karras_sigmas=True,
    )
    return parts.make(
        StableVideoDiffusionPipeline,
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        feature_extractor=CLIPImageProcessor(crop_size=16, size=16),
        image_encoder=parts.seeded(CLIPVisionModelWithProjection, config),
    )


def svd_call(n: int) -> dict[str, Any]:
    image = {"image": inputs.picture("image", n, 16), "height": 16, "width": 16, "noise_aug_strength": 0.0}
    return image | STEPS | FRAMES


SPECIMENS = (
    Specimen(name="animatediff", build=build_animatediff, call=video_call, prompts=True),
    Specimen(name="text_to_video", build=build_text_to_video, call=video_call, prompts=True),
    Specimen(name="svd", build=build_svd, call=svd_call),
)
