"""From open_clip's layout of a CLIP to transformers'."""

import re
from collections.abc import Iterator, Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPConfig

_VISION_HEAD, _TEXT_HEAD = 80, 64  # width of a head in ViT-H-14 (open_clip's model_configs); no tensor tells it

_NAMES = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names of transformers' CLIPModel.

    open_clip keeps queries, keys and values in one matrix, one above the other, and multiplies by its two projections
    from the right, where transformers has linear layers.
    """
    return dict(pair for name, value in state.items() for pair in _converted(name, value))


def _converted(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    new = name
    for pattern, replacement in _NAMES:
        new = re.sub(pattern, replacement, new)
    if name in ("visual.proj", "text_projection"):
        yield new, value.T.contiguous()
    elif found := re.search(r"in_proj_(weight|bias)$", new):
        for part, rows in zip("qkv", value.chunk(3), strict=True):
            yield f"{new[: found.start()]}{part}_proj.{found[1]}", rows
    else:
        yield new, value


def config_of(state: Mapping[str, Tensor]) -> "CLIPConfig":
    """The sizes of a CLIP of the family of ViT-H-14, read off its tensors."""
    from transformers import CLIPConfig

    patch = state["visual.conv1.weight"].shape[-1]
    grid = isqrt(len(state["visual.positional_embedding"]) - 1)
    tokens, width = state["token_embedding.weight"].shape
    vision = _tower(state, "visual.", _VISION_HEAD) | {"patch_size": patch, "image_size": patch * grid}
    text = _tower(state, "", _TEXT_HEAD) | {
        "vocab_size": tokens,
        "hidden_size": width,
        "max_position_embeddings": len(state["positional_embedding"]),
        # by this number transformers reads the text at its highest token, as open_clip does
        "eos_token_id": 2,
        "bos_token_id": 0,
    }
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=state["visual.proj"].shape[1])


def _tower(state: Mapping[str, Tensor], prefix: str, head: int) -> dict[str, Any]:
    blocks = f"{prefix}transformer.resblocks."
    wide, width = state[f"{blocks}0.mlp.c_fc.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": wide,
        "num_attention_heads": width // head,
        "num_hidden_layers": len({name.split(".")[blocks.count(".")] for name in state if name.startswith(blocks)}),
        "hidden_act": "gelu",
    }
