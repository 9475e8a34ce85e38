"""ImageReward v1.0: which image people would prefer for a prompt, by a BLIP taught on experts' comparisons."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.blip import VISION, text_config, text_state, vision_config, vision_state
from deradiff.rewards.card import Card
from deradiff.rewards.files import read_weights
from deradiff.rewards.network import filled, linear_head, tokenizer
from deradiff.rewards.preprocess import cropped, normalised, rounded, to_pil, to_tensor
from deradiff.rewards.scorer import Scorer

_MODEL, _TOKENIZER = "THUDM/ImageReward", "google-bert/bert-base-uncased"
_MEAN, _STD = 0.16717362830052426, 1.0333394966054072  # of the head's output, ImageReward/ImageReward.py
_TOKENS = 35


class ImageReward(Scorer):
    """A head on the prompt's [CLS], encoded with cross attention to the image, in units of its deviation.

    As ``ImageReward.score`` of https://github.com/THUDM/ImageReward, which leaves [CLS] where BLIP would put [ENC].
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

    def _load(self) -> None:
        from transformers import BlipTextModel, BlipVisionModel

        state = read_weights(self.weights)
        if f"{VISION}pos_embed" not in state:
            raise RewardError(f"the weights {self.weights} have no {VISION}pos_embed; give the published file")
        seen = vision_config(state)
        read = text_config(json.loads(self.files["med_config.json"].read_text()), seen.hidden_size)
        where = (self.weights, self.dtype, self.device)
        self.vision: Any = filled(lambda: BlipVisionModel(seen), vision_state(state), *where)
        self.text: Any = filled(lambda: BlipTextModel(read, add_pooling_layer=False), text_state(state), *where)
        self.head = linear_head(state, "mlp.layers.", self.weights, self.device)
        self.tokenize = tokenizer(self.files["tokenizer.json"], "[PAD]", _TOKENS, self.device)

    def _batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        size = self.vision.config.image_size
        pixels = normalised(torch.stack([to_tensor(cropped(picture, size, rounded)) for picture in to_pil(images)]))
        seen = self.vision(pixel_values=pixels.to(self.device, self.dtype)).last_hidden_state
        read = self.text(**self.tokenize(prompts), encoder_hidden_states=seen, is_decoder=False).last_hidden_state
        return (self.head(read[:, 0].float())[:, 0] - _MEAN) / _STD
