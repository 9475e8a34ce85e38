"""FLUX and its kin, which pack an image into a sequence of tokens: FLUX, Kontext, Chroma, FLUX.2."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLFlux2,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)

from . import inputs, parts
from .inputs import COMMON, WIDTH
from .specimen import Specimen

TINY: dict[str, Any] = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
}


AXES = (4, 4, 8)


def build_flux(pipeline: type[DiffusionPipeline]) -> DiffusionPipeline:
    """Guidance is an input of the network."""
    transformer = parts.seeded(
        FluxTransformer2DModel,
        **TINY,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=AXES,
    )
    return parts.assemble(pipeline, transformer, **parts.absent("text_encoder_2", "tokenizer_2"))


def flux_call(n: int) -> dict[str, Any]:
    return inputs.embeds(n, pooled=True, negative=False) | COMMON


def kontext_call(n: int) -> dict[str, Any]:
    """The tokens of an image to edit follow those of the image to make; guidance with a negative prompt too."""
    image = {"image": inputs.picture("image", n), "max_area": 32 * 32, "_auto_resize": False}
    return inputs.embeds(n, pooled=True) | {"true_cfg_scale": 3.0} | image | COMMON


def build_chroma() -> DiffusionPipeline:
    transformer = parts.seeded(
        ChromaTransformer2DModel,
        **TINY,
        axes_dims_rope=AXES,
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return parts.assemble(ChromaPipeline, transformer)


def chroma_call(n: int) -> dict[str, Any]:
    masks = {f"{sign}prompt_attention_mask": inputs.mask(n).bool() for sign in ("", "negative_")}
    return inputs.embeds(n) | masks | {"guidance_scale": 3.0} | COMMON


def build_flux2(pipeline: type[DiffusionPipeline]) -> DiffusionPipeline:
    transformer = parts.seeded(
        Flux2Transformer2DModel,
        **TINY,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )
    vae = parts.seeded(
        AutoencoderKLFlux2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=32,
    )
    return parts.assemble(pipeline, transformer, vae=vae)


SPECIMENS = (
    Specimen(name="flux", build=lambda: build_flux(FluxPipeline), call=flux_call, components=parts.TRANSFORMER),
    Specimen(
        name="flux_kontext",
        build=lambda: build_flux(FluxKontextPipeline),
        call=kontext_call,
        components=parts.TRANSFORMER,
    ),
    Specimen(
        name="chroma",
        build=build_chroma,
        components=parts.TRANSFORMER,
        call=chroma_call,
    ),
    Specimen(
        name="flux2",
        build=lambda: build_flux2(Flux2Pipeline),
        components=parts.TRANSFORMER,
        call=lambda n: inputs.embeds(n, negative=False) | COMMON,
    ),
)
