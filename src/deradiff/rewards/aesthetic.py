"""LAION's improved aesthetic predictor: how much people like an image, whatever the prompt."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from deradiff.rewards.card import Card
from deradiff.rewards.clip import ClipScorer
from deradiff.rewards.files import read_weights
from deradiff.rewards.network import linear_head
from deradiff.rewards.preprocess import cropped, normalised, rounded, to_pil, to_tensor

_HEAD, _CLIP = "camenduru/improved-aesthetic-predictor", "openai/clip-vit-large-patch14"


class Aesthetic(ClipScorer):
    """Linear layers on the image's embedding of length 1; prompts are not read.

    As simple_inference.py of https://github.com/christophschuhmann/improved-aesthetic-predictor.
    """

    card: ClassVar = Card(
        name="LAION aesthetic predictor v2",
        measures="how much people like the image, whatever the prompt",
        range="about 1 to 10",
        model=f"{_HEAD} (sac+logos+ava1-l14-linearMSE.pth), {_CLIP}",
        licence="Apache-2.0 (head), MIT (CLIP's code)",
        citation="Schuhmann 2022, github.com/christophschuhmann/improved-aesthetic-predictor",
    )
    published: ClassVar = {
        "sac+logos+ava1-l14-linearMSE.pth": _HEAD,
        "model.safetensors": _CLIP,
        "config.json": _CLIP,
    }

    def _load(self) -> None:
        super()._load()
        self.head = linear_head(read_weights(self.weights), "layers.", self.weights, self.device)

    def _pixels(self, images: Tensor) -> Tensor:
        size = self.model.config.vision_config.image_size
        return normalised(torch.stack([to_tensor(cropped(picture, size, rounded)) for picture in to_pil(images)]))

    def _batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.head(self._of_images(images))[:, 0]
