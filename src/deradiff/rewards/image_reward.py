"""ImageReward v1.0: which image people would prefer for a prompt, by a BLIP trained on experts' comparisons.

The weights are published in ImageReward's layout of BLIP, which is translated to transformers'.
"""

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.reading import read_object
from deradiff.rewards.card import Card
from deradiff.rewards.preprocess import normalize_pixels, resize_and_crop, round_half, to_pil, to_tensor
from deradiff.rewards.scorer import Scorer
from deradiff.rewards.weights import build_linear_head, build_network, load_tokenizer, read_weights

if TYPE_CHECKING:
    from transformers import BlipTextConfig, BlipVisionConfig

_MODEL, _TOKENIZER = "THUDM/ImageReward", "google-bert/bert-base-uncased"
_MEAN, _STD = 0.16717362830052426, 1.0333394966054072  # of the head's output, ImageReward/ImageReward.py
_TOKENS = 35


VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."
_HEAD = 64  # width of a head in ViT-L/16 (ImageReward's models/BLIP/blip.py); no tensor shows it

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


class ImageReward(Scorer):
    """A head on the prompt's [CLS], which attends to the image; standardised on ImageReward's training set.

    Source: ``ImageReward.score`` of https://github.com/THUDM/ImageReward, which keeps [CLS] where BLIP would put [ENC].
    """

    card: ClassVar = Card(
        name="ImageReward v1.0",
        measures="which image people would prefer for the prompt",
        range="mean 0 and deviation 1 over its training set",
        model=f"{_MODEL} (ImageReward.pt), {_TOKENIZER} (tokenizer)",
        licence="Apache-2.0",
        citation="Xu et al. 2023, arXiv:2304.05977",
        margin=0.19,  # logit(0.55) of the head's output, in units of its deviation
        margin_source="a preference of 55 to 45 by its own model: logit(0.55) / 1.033",
    )
    published: ClassVar = {"ImageReward.pt": _MODEL, "med_config.json": _MODEL, "tokenizer.json": _TOKENIZER}

    def load(self) -> None:
        """Read both encoders, the head and the tokenizer."""
        from transformers import BlipTextModel, BlipVisionModel

        state = read_weights(self.weights)
        if f"{VISION}pos_embed" not in state:
            raise RewardError(f"the weights {self.weights} have no {VISION}pos_embed; give the published file")
        vision = _infer_vision_config(state)
        config = read_object(self.files["med_config.json"], "the config", RewardError)
        text = _make_text_config(config, vision.hidden_size)
        where = (self.weights, self.dtype, self.device)
        self.vision: Any = build_network(lambda: BlipVisionModel(vision), _convert_vision_state(state), *where)
        self.text: Any = build_network(
            lambda: BlipTextModel(text, add_pooling_layer=False), _under(state, TEXT), *where
        )
        self.head = build_linear_head(state, "mlp.layers.", self.weights, self.device)
        self.tokenize = load_tokenizer(self.files["tokenizer.json"], "[PAD]", _TOKENS, self.device)

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch."""
        size = self.vision.config.image_size
        pixels = normalize_pixels(
            torch.stack([to_tensor(resize_and_crop(picture, size, round_half)) for picture in to_pil(images)])
        )
        encoded = self.vision(pixel_values=pixels.to(self.device, self.dtype)).last_hidden_state
        states = self.text(**self.tokenize(prompts), encoder_hidden_states=encoded, is_decoder=False).last_hidden_state
        return (self.head(states[:, 0].float())[:, 0] - _MEAN) / _STD


def _convert_vision_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's weights under the names of transformers' BlipVisionModel."""
    converted = {}
    for name, value in _under(state, VISION).items():
        new = name
        for pattern, replacement in _VISION_NAMES:
            new = re.sub(pattern, replacement, new)
        converted[new] = value
    return converted


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix; for the text encoder transformers has BLIP's names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _infer_vision_config(state: Mapping[str, Tensor]) -> "BlipVisionConfig":
    """Infer the sizes of the image encoder from its tensors."""
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
        layer_norm_eps=1e-6,  # models/BLIP/vit.py; transformers' default differs
    )


def _make_text_config(med: Mapping[str, Any], width: int) -> "BlipTextConfig":
    """The config of the text encoder.

    Args:
        med: content of the published med_config.json.
        width: of the image encoder; it overrides the file's ``encoder_width``, as in ImageReward's code.
    """
    from transformers import BlipTextConfig

    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    kept += ("max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id")
    # transformers adds cross attention to decoders only; each call says whether attention is causal
    return BlipTextConfig(**{name: med[name] for name in kept}, encoder_hidden_size=width, is_decoder=True)
