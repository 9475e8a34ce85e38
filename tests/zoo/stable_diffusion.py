"""Stable Diffusion and its kin: text to image, image to image, inpainting, 3-way guidance, consistency, a LoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    KolorsPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig

from . import inputs, parts
from .inputs import COMMON, WIDTH
from .specimen import Specimen

STEPS: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
SIZE: dict[str, Any] = {"height": 32, "width": 32}


def components(unet: UNet2DConditionModel | None = None, **scheduler: Any) -> dict[str, Any]:
    """What every pipeline of Stable Diffusion 1 is made of."""
    return {
        "vae": parts.vae(),
        "text_encoder": parts.clip_text(),
        "tokenizer": parts.tokenizer(),
        "unet": unet or parts.unet(),
        "scheduler": parts.ddim(**scheduler),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def text_call(n: int) -> dict[str, Any]:
    """Text to image with guidance."""
    return {"prompt": inputs.prompts(n), "guidance_scale": 3.0} | STEPS | SIZE


def image_call(n: int) -> dict[str, Any]:
    """Image to image with guidance: two steps are left of four."""
    image = inputs.picture("image", n)
    return {"prompt": inputs.prompts(n), "image": image, "strength": 0.5} | STEPS | {"num_inference_steps": 4}


def inpaint_call(n: int) -> dict[str, Any]:
    """Inpainting the right half of each image."""
    mask = torch.zeros(n, 1, 32, 32)
    mask[..., 16:] = 1
    image = inputs.picture("image", n)
    return text_call(n) | {"image": image, "mask_image": mask}


def build(pipeline: type[DiffusionPipeline], unet: dict[str, Any], **scheduler: Any) -> DiffusionPipeline:
    """A pipeline of Stable Diffusion 1, with changes to its UNet and its scheduler."""
    return parts.make(pipeline, **components(parts.unet(**unet), **scheduler))


def build_sdxl() -> DiffusionPipeline:
    unet = parts.unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=WIDTH + 6 * 4,
        use_linear_projection=True,
    )
    return parts.make(
        StableDiffusionXLPipeline,
        vae=parts.vae(),
        unet=unet,
        scheduler=parts.ddim(),
        tokenizer=parts.tokenizer(),
        tokenizer_2=parts.tokenizer(),
        text_encoder=parts.clip_text(),
        text_encoder_2=parts.clip_text(projection=True),
        add_watermarker=False,
    )


def build_kolors() -> DiffusionPipeline:
    unet = parts.unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
        projection_class_embeddings_input_dim=WIDTH + 6 * 4,
        use_linear_projection=True,
    )
    return parts.make(
        KolorsPipeline, unet=unet, scheduler=parts.ddim(), vae=parts.vae(), text_encoder=None, tokenizer=None
    )


def build_style_lora() -> DiffusionPipeline:
    """A LoRA named "style", which is none of our business, is already active."""
    pipe = build(StableDiffusionPipeline, {})
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    with parts.seed_everything(5):
        pipe.unet.add_adapter(config, adapter_name="style")
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return pipe


def edit_call(n: int) -> dict[str, Any]:
    """Guidance by text and by image at once: three rows an image."""
    return {"prompt": inputs.prompts(n), "image": inputs.picture("image", n), "guidance_scale": 3.0} | STEPS


def consistency_call(n: int) -> dict[str, Any]:
    """Guidance is an input of the network, and noise is added between steps."""
    return {"prompt": inputs.prompts(n), "original_inference_steps": 20} | STEPS | SIZE


def build_consistency() -> DiffusionPipeline:
    unet = parts.unet(time_cond_proj_dim=8)
    tiny = components(unet) | {"scheduler": LCMScheduler(beta_schedule="scaled_linear", clip_sample=False)}
    return parts.make(LatentConsistencyModelPipeline, **tiny)


def sd(name: str, pipeline: type[DiffusionPipeline], call: Callable[[int], dict[str, Any]], **config: Any) -> Specimen:
    scheduler = {key: config.pop(key) for key in ("prediction_type",) if key in config}
    return Specimen(name=name, build=lambda: build(pipeline, config, **scheduler), call=call, prompts=True)


SPECIMENS = (
    sd("sd", StableDiffusionPipeline, text_call),
    sd("sd_v", StableDiffusionPipeline, text_call, prediction_type="v_prediction"),
    Specimen(name="sdxl", build=build_sdxl, call=text_call, prompts=True),
    Specimen(name="kolors", build=build_kolors, call=lambda n: inputs.embeds(n, pooled=True) | COMMON),
    sd("sd_img2img", StableDiffusionImg2ImgPipeline, image_call),
    sd("sd_inpaint", StableDiffusionInpaintPipeline, inpaint_call, in_channels=9),
    sd("instruct_pix2pix", StableDiffusionInstructPix2PixPipeline, edit_call, in_channels=8),
    Specimen(name="lcm", build=build_consistency, call=consistency_call, prompts=True),
    Specimen(name="sd_with_style_lora", build=build_style_lora, call=text_call, prompts=True),
)
