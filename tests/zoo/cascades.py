"""Models in two stages, a prior and a decoder: Stable Cascade, Kandinsky 2.2."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDPMWuerstchenScheduler,
    DiffusionPipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    StableCascadeDecoderPipeline,
    StableCascadePriorPipeline,
    UnCLIPScheduler,
)
from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from . import inputs, parts
from .inputs import WIDTH
from .specimen import Specimen
from .stable_diffusion import STEPS


def cascade(**config: Any) -> StableCascadeUNet:
    return parts.seeded(
        StableCascadeUNet,
        conditioning_dim=WIDTH,
        block_out_channels=(16, 16),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        clip_text_pooled_in_channels=WIDTH,
        dropout=(0.0, 0.0),
        timestep_ratio_embedding_dim=8,
        **config,
    )


def build_cascade_prior() -> DiffusionPipeline:
    prior = cascade(in_channels=4, out_channels=4, clip_text_in_channels=WIDTH, clip_image_in_channels=WIDTH)
    return parts.make(
        StableCascadePriorPipeline,
        prior=prior,
        scheduler=DDPMWuerstchenScheduler(),
        resolution_multiple=4.0,
        tokenizer=parts.tokenizer(),
        text_encoder=parts.clip_text(projection=True),
    )


def cascade_prior_call(n: int) -> dict[str, Any]:
    size = {"height": 32, "width": 32, "output_type": "pt"}
    return {"prompt": inputs.prompts(n), "guidance_scale": 3.0} | STEPS | size


def build_cascade_decoder() -> DiffusionPipeline:
    decoder = cascade(in_channels=4, out_channels=4, patch_size=2, effnet_in_channels=4)
    vqgan = parts.seeded(PaellaVQModel, bottleneck_blocks=1, num_vq_embeddings=2, embed_dim=8)
    return parts.make(
        StableCascadeDecoderPipeline,
        decoder=decoder,
        scheduler=DDPMWuerstchenScheduler(),
        vqgan=vqgan,
        latent_dim_scale=4.0,
        tokenizer=parts.tokenizer(),
        text_encoder=parts.clip_text(projection=True),
    )


def cascade_decoder_call(n: int) -> dict[str, Any]:
    embeddings = inputs.draw("prior", n, 4, 4, 4)
    return {"prompt": inputs.prompts(n), "image_embeddings": embeddings, "guidance_scale": 2.0} | STEPS


def build_kandinsky_prior() -> DiffusionPipeline:
    """The network's output is a field of its own name: ``predicted_image_embedding``."""
    prior = parts.seeded(
        PriorTransformer,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=16,
    )
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        image_size=32,
        projection_dim=WIDTH,
        num_attention_heads=2,
        num_hidden_layers=1,
        patch_size=16,
        intermediate_size=32,
    )
    scheduler = UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0)
    return parts.make(
        KandinskyV22PriorPipeline,
        prior=prior,
        image_encoder=parts.seeded(CLIPVisionModelWithProjection, config),
        scheduler=scheduler,
        tokenizer=parts.tokenizer(),
        text_encoder=parts.clip_text(projection=True),
        image_processor=None,
    )


SPECIMENS = (
    Specimen(
        name="cascade_prior", build=build_cascade_prior, call=cascade_prior_call, components=("prior",), prompts=True
    ),
    Specimen(
        name="cascade_decoder",
        build=build_cascade_decoder,
        call=cascade_decoder_call,
        components=("decoder",),
        prompts=True,
    ),
    Specimen(
        name="kandinsky_prior",
        build=build_kandinsky_prior,
        components=("prior",),
        prompts=True,
        call=lambda n: {"prompt": inputs.prompts(n)} | STEPS | {"output_type": "pt"},
    ),
)
