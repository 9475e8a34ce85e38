"""HunyuanDiT, alone and under a ControlNet."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DiffusionPipeline,
    HunyuanDiT2DControlNetModel,
    HunyuanDiT2DModel,
    HunyuanDiTControlNetPipeline,
    HunyuanDiTPipeline,
)

from . import inputs, parts
from .inputs import COMMON, TOKENS, WIDTH
from .specimen import Specimen

HUNYUAN: dict[str, Any] = parts.SMALL | {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 16,
    "mlp_ratio": 2.0,
    "cross_attention_dim": WIDTH,
    "cross_attention_dim_t5": WIDTH,
    "pooled_projection_dim": 8,
    "text_len": TOKENS,
    "text_len_t5": TOKENS,
    "activation_fn": "gelu-approximate",
}


def build_hunyuandit(pipeline: type[DiffusionPipeline], **components: Any) -> DiffusionPipeline:
    """Four layers: the second half adds what the first half skipped. The learned variance is thrown away."""
    transformer = parts.seeded(HunyuanDiT2DModel, **HUNYUAN, num_layers=4)
    return parts.assemble(
        pipeline,
        transformer,
        scheduler=parts.ddim(),
        vae=parts.steady(parts.vae(blocks=4)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **components,
    )


def build_hunyuandit_controlnet() -> DiffusionPipeline:
    """The transformer pops the residuals off the list that it is given."""
    controlnet = parts.seeded(HunyuanDiT2DControlNetModel, **HUNYUAN, transformer_num_layers=4, seed=3)
    return build_hunyuandit(HunyuanDiTControlNetPipeline, controlnet=controlnet)


def hunyuandit_call(n: int) -> dict[str, Any]:
    given = inputs.embeds(n, masked=True)
    second = {f"{key}_2": value for key, value in given.items()}
    return given | second | COMMON | {"use_resolution_binning": False, "height": 64, "width": 64}


def hunyuandit_controlnet_call(n: int) -> dict[str, Any]:
    return hunyuandit_call(n) | {"control_image": inputs.picture("edges", n, 64)}


SPECIMENS = (
    Specimen(
        name="hunyuandit",
        build=lambda: build_hunyuandit(HunyuanDiTPipeline),
        call=hunyuandit_call,
        components=parts.TRANSFORMER,
    ),
    Specimen(
        name="hunyuandit_controlnet",
        build=build_hunyuandit_controlnet,
        call=hunyuandit_controlnet_call,
        components=parts.TRANSFORMER,
    ),
)
