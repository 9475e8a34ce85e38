"""CLIPScore: how well an image shows its prompt, by OpenAI's CLIP."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from deradiff.rewards.card import Card
from deradiff.rewards.clip import ClipScorer

_REPO = "openai/clip-vit-large-patch14"


class CLIPScore(ClipScorer):
    """100 max(cos, 0) of the embeddings of image and prompt, as torchmetrics scales it.

    Hessel et al. 2021 (https://arxiv.org/abs/2104.08718) scale by 2.5 and start each text with "A photo depicts";
    neither is done here.
    """

    card: ClassVar = Card(
        name="CLIPScore",
        measures="how well the image shows its prompt",
        range="0 to 100 as 100 max(cos, 0), torchmetrics' convention",
        model=_REPO,
        licence="MIT (its code)",
        citation="Hessel et al. 2021, arXiv:2104.08718",
    )
    published: ClassVar = dict.fromkeys(
        ("model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"), _REPO
    )

    def _batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return 100 * self._cosines(images, prompts).clamp(min=0)
