"""HPS v2.1: which image people would prefer for a prompt, by a CLIP-H taught on HPD v2."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from deradiff.errors import RewardError
from deradiff.rewards.card import Card
from deradiff.rewards.clip import ClipScorer
from deradiff.rewards.files import read_weights
from deradiff.rewards.network import filled
from deradiff.rewards.open_clip import config_of, converted
from deradiff.rewards.preprocess import normalised, padded, to_pil

if TYPE_CHECKING:
    from transformers import CLIPModel

_MODEL, _TOKENIZER = "xswu/HPSv2", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class HPS(ClipScorer):
    """The cosine of image and prompt, as ``hpsv2.score(..., hps_version="v2.1")`` returns it (hpsv2/img_score.py).

    hpsv2 also mends broken unicode and html in prompts (ftfy), which is not done here.
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

    def _network(self) -> "CLIPModel":
        from transformers import CLIPModel

        state = read_weights(self.weights).get("state_dict")
        if not isinstance(state, dict) or "visual.proj" not in state:
            raise RewardError(f"the weights {self.weights} have no CLIP under 'state_dict'; give the published file")
        config = config_of(state)
        return filled(lambda: CLIPModel(config), converted(state), self.weights, self.dtype, self.device)

    def _pixels(self, images: Tensor) -> Tensor:
        size = self.model.config.vision_config.image_size
        return normalised(torch.stack([padded(picture, size) for picture in to_pil(images)]))

    def _batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._cosines(images, prompts)
