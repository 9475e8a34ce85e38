"""HPS v2.1: which image people would prefer for a prompt, by a CLIP-H trained on HPD v2.

The weights are published in open_clip's layout, which `convert_open_clip` translates to transformers'.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.card import Card
from deradiff.rewards.clip import ClipScorer
from deradiff.rewards.preprocess import normalize_pixels, resize_and_pad, to_pil
from deradiff.rewards.weights import build_network, read_weights

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel

_MODEL, _TOKENIZER = "xswu/HPSv2", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


_VISION_HEAD, _TEXT_HEAD = 80, 64  # width of a head in ViT-H-14 (open_clip's model_configs); no tensor shows it

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


class HPS(ClipScorer):
    """The cosine of image and prompt, as ``hpsv2.score(..., hps_version="v2.1")`` returns it (hpsv2/img_score.py).

    hpsv2 also repairs broken unicode and html in prompts (ftfy); this implementation does not.
    """

    card: ClassVar = Card(
        name="HPS v2.1",
        measures="which image people would prefer for the prompt",
        range="cos, -1 to 1",
        model=f"{_MODEL} (HPS_v2.1_compressed.pt), {_TOKENIZER} (tokenizer)",
        licence="Apache-2.0",
        citation="Wu et al. 2023, arXiv:2306.09341",
        margin=0.002,  # logit(0.55) at the temperature of 100 that it was trained with
        margin_source="a preference of 55 to 45 by its own model: logit(0.55) / 100",
    )
    published: ClassVar = {"HPS_v2.1_compressed.pt": _MODEL, "tokenizer.json": _TOKENIZER}

    def _load_network(self) -> "CLIPModel":
        from transformers import CLIPModel

        state = read_weights(self.weights).get("state_dict")
        if not isinstance(state, dict) or "visual.proj" not in state:
            raise RewardError(f"the weights {self.weights} have no CLIP under 'state_dict'; give the published file")
        config = infer_clip_config(state)
        return build_network(lambda: CLIPModel(config), convert_open_clip(state), self.weights, self.dtype, self.device)

    def _preprocess(self, images: Tensor) -> Tensor:
        size = self.model.config.vision_config.image_size
        return normalize_pixels(torch.stack([resize_and_pad(picture, size) for picture in to_pil(images)]))

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch."""
        return self._cosines(images, prompts)


def convert_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of open_clip's CLIP to those of transformers' CLIPModel.

    open_clip stacks queries, keys and values in one matrix and multiplies by its two projections from the right, where
    transformers has linear layers.
    """
    return dict(pair for name, value in state.items() for pair in _convert_tensor(name, value))


def _convert_tensor(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    new = name
    for pattern, replacement in _NAMES:
        new = re.sub(pattern, replacement, new)
    if name in ("visual.proj", "text_projection"):
        yield new, value.T.contiguous()
    elif match := re.search(r"in_proj_(weight|bias)$", new):
        for part, rows in zip("qkv", value.chunk(3), strict=True):
            yield f"{new[: match.start()]}{part}_proj.{match[1]}", rows
    else:
        yield new, value


def infer_clip_config(state: Mapping[str, Tensor]) -> "CLIPConfig":
    """Infer the sizes of a CLIP of ViT-H-14's family from its tensors."""
    from transformers import CLIPConfig

    patch = state["visual.conv1.weight"].shape[-1]
    grid = isqrt(len(state["visual.positional_embedding"]) - 1)
    tokens, width = state["token_embedding.weight"].shape
    vision = _infer_tower(state, "visual.", _VISION_HEAD) | {"patch_size": patch, "image_size": patch * grid}
    text = _infer_tower(state, "", _TEXT_HEAD) | {
        "vocab_size": tokens,
        "hidden_size": width,
        "max_position_embeddings": len(state["positional_embedding"]),
        # with this id transformers reads the text at its highest token, as open_clip does
        "eos_token_id": 2,
        "bos_token_id": 0,
    }
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=state["visual.proj"].shape[1])


def _infer_tower(state: Mapping[str, Tensor], prefix: str, head: int) -> dict[str, Any]:
    blocks = f"{prefix}transformer.resblocks."
    wide, width = state[f"{blocks}0.mlp.c_fc.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": wide,
        "num_attention_heads": width // head,
        "num_hidden_layers": len({name.split(".")[blocks.count(".")] for name in state if name.startswith(blocks)}),
        "hidden_act": "gelu",
    }
