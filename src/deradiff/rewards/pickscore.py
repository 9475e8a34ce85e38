"""PickScore: which image people would pick for a prompt, by a CLIP-H taught on Pick-a-Pic."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from deradiff.rewards.card import Card
from deradiff.rewards.clip import ClipScorer

_MODEL, _PROCESSOR = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore(ClipScorer):
    """The learned temperature times the cosine of image and prompt, without the softmax over a prompt's images.

    As the model's card computes ``scores`` (https://huggingface.co/yuvalkirstain/PickScore_v1).
    """

    card: ClassVar = Card(
        name="PickScore v1",
        measures="which image people would pick for the prompt",
        range="exp(logit_scale) cos, at most 100",
        model=f"{_MODEL}, {_PROCESSOR}",
        licence="MIT (its code; none found for the weights)",
        citation="Kirstain et al. 2023, arXiv:2305.01569",
        margin=0.2,  # logit(0.55): the score is the logit of a preference (arXiv:2305.01569)
        margin_source="a preference of 55 to 45 by its own model: logit(0.55)",
    )
    published: ClassVar = {
        "model.safetensors": _MODEL,
        "config.json": _MODEL,
        "preprocessor_config.json": _PROCESSOR,
        "tokenizer.json": _PROCESSOR,
    }

    def _batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.model.logit_scale.float().exp() * self._cosines(images, prompts)
