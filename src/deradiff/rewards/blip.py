"""From ImageReward's layout of its BLIP to transformers'."""

import re
from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from transformers import BlipTextConfig, BlipVisionConfig

VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."
_HEAD = 64  # width of a head in ViT-L/16 (ImageReward's models/BLIP/blip.py); no tensor tells it

_VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)


def vision_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's weights by the names of transformers' BlipVisionModel."""
    converted = {}
    for name, value in _under(state, VISION).items():
        new = name
        for pattern, replacement in _VISION_NAMES:
            new = re.sub(pattern, replacement, new)
        converted[new] = value
    return converted


def text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights; transformers kept BLIP's names."""
    return _under(state, TEXT)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def vision_config(state: Mapping[str, Tensor]) -> "BlipVisionConfig":
    """The sizes of the image encoder, read off its tensors."""
    from transformers import BlipVisionConfig

    width, _, patch, _ = state[f"{VISION}patch_embed.proj.weight"].shape
    blocks = f"{VISION}blocks."
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(state[f"{blocks}0.mlp.fc1.weight"]),
        num_hidden_layers=len({name.split(".")[3] for name in state if name.startswith(blocks)}),
        num_attention_heads=width // _HEAD,
        image_size=patch * isqrt(state[f"{VISION}pos_embed"].shape[1] - 1),
        patch_size=patch,
        layer_norm_eps=1e-6,  # models/BLIP/vit.py; transformers' default is another
    )


def text_config(med: Mapping[str, Any], width: int) -> "BlipTextConfig":
    """The sizes of the text encoder.

    Args:
        med: what the published med_config.json says.
        width: of the image encoder; the file's ``encoder_width`` is overruled by it in ImageReward's code too.
    """
    from transformers import BlipTextConfig

    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    kept += ("max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id")
    # transformers adds cross attention to what it calls a decoder; whether attention is causal is said at each call
    return BlipTextConfig(**{name: med[name] for name in kept}, encoder_hidden_size=width, is_decoder=True)
