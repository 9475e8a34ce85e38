"""Rewards by CLIP, published in the layout of transformers: CLIPScore, PickScore and LAION's aesthetic predictor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from deradiff.errors import RewardError
from deradiff.reading import read_object
from deradiff.rewards.card import Card
from deradiff.rewards.preprocess import (
    normalize_pixels,
    preprocess_by_config,
    resize_and_crop,
    round_half,
    to_pil,
    to_tensor,
)
from deradiff.rewards.scorer import Scorer
from deradiff.rewards.weights import build_linear_head, build_network, load_tokenizer, read_weights

if TYPE_CHECKING:
    from transformers import CLIPModel

_OPENAI_CLIP = "openai/clip-vit-large-patch14"
_PICKSCORE, _LAION_CLIP = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_HEAD = "camenduru/improved-aesthetic-predictor"


class ClipScorer(Scorer):
    """A scorer by the embeddings of transformers' CLIPModel."""

    def load(self) -> None:
        """Read the network, the preprocessor and the tokenizer, as far as they are published."""
        self.model: Any = self._load_network()
        if "preprocessor_config.json" in self.files:
            self.preprocessor = read_object(self.files["preprocessor_config.json"], "the config", RewardError)
        if "tokenizer.json" in self.files:
            length = self.model.config.text_config.max_position_embeddings
            self.tokenize = load_tokenizer(self.files["tokenizer.json"], "<|endoftext|>", length, self.device)

    def _load_network(self) -> "CLIPModel":
        from transformers import CLIPConfig, CLIPModel

        config = CLIPConfig.from_dict(read_object(self.files["config.json"], "the config", RewardError))
        file = self.files["model.safetensors"]
        return build_network(lambda: CLIPModel(config), read_weights(file), file, self.dtype, self.device)

    def _preprocess(self, images: Tensor) -> Tensor:
        """Inputs ``[batch, 3, size, size]`` of the vision tower."""
        return preprocess_by_config(to_pil(images), self.preprocessor)

    def _embed_images(self, images: Tensor) -> Tensor:
        """Embeddings ``[batch, dim]`` of norm 1."""
        pixels = self._preprocess(images).to(self.device, self.dtype)
        return normalize(self.model.get_image_features(pixel_values=pixels).pooler_output.float(), dim=-1)

    def _embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings ``[batch, dim]`` of norm 1."""
        # attention is causal and the embedding is read at the end of the text, so the padding behind it has no effect
        tokens = self.tokenize(prompts)["input_ids"]
        return normalize(self.model.get_text_features(input_ids=tokens).pooler_output.float(), dim=-1)

    def _cosines(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of each image with its prompt, ``[batch]``."""
        return (self._embed_images(images) * self._embed_texts(prompts)).sum(-1)


class CLIPScore(ClipScorer):
    """CLIPScore: how well an image shows its prompt, 100 max(cos, 0) of their embeddings as in torchmetrics.

    Hessel et al. 2021 (https://arxiv.org/abs/2104.08718) scale by 2.5 and prefix each text with "A photo depicts"; this
    implementation does neither.
    """

    card: ClassVar = Card(
        name="CLIPScore",
        measures="how well the image shows its prompt",
        range="0 to 100 as 100 max(cos, 0), torchmetrics' convention",
        model=_OPENAI_CLIP,
        licence="MIT (its code)",
        citation="Hessel et al. 2021, arXiv:2104.08718",
    )
    published: ClassVar = dict.fromkeys(
        ("model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"), _OPENAI_CLIP
    )

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch."""
        return 100 * self._cosines(images, prompts).clamp(min=0)


class PickScore(ClipScorer):
    """PickScore: which image people would pick, the learned temperature times the cosine of image and prompt.

    These are the ``scores`` of the model's card (https://huggingface.co/yuvalkirstain/PickScore_v1), without the
    softmax over a prompt's images.
    """

    card: ClassVar = Card(
        name="PickScore v1",
        measures="which image people would pick for the prompt",
        range="exp(logit_scale) cos, at most 100",
        model=f"{_PICKSCORE}, {_LAION_CLIP}",
        licence="MIT (its code; none found for the weights)",
        citation="Kirstain et al. 2023, arXiv:2305.01569",
        margin=0.2,  # logit(0.55): the score is the logit of a preference (arXiv:2305.01569)
        margin_source="a preference of 55 to 45 by its own model: logit(0.55)",
    )
    published: ClassVar = {
        "model.safetensors": _PICKSCORE,
        "config.json": _PICKSCORE,
        "preprocessor_config.json": _LAION_CLIP,
        "tokenizer.json": _LAION_CLIP,
    }

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch."""
        return self.model.logit_scale.float().exp() * self._cosines(images, prompts)


class Aesthetic(ClipScorer):
    """LAION's improved aesthetic predictor: linear layers on the image's normalised embedding; it ignores prompts.

    Source: simple_inference.py of https://github.com/christophschuhmann/improved-aesthetic-predictor.
    """

    card: ClassVar = Card(
        name="LAION aesthetic predictor v2",
        measures="how much people like the image, whatever the prompt",
        range="about 1 to 10",
        model=f"{_HEAD} (sac+logos+ava1-l14-linearMSE.pth), {_OPENAI_CLIP}",
        licence="Apache-2.0 (head), MIT (CLIP's code)",
        citation="Schuhmann 2022, github.com/christophschuhmann/improved-aesthetic-predictor",
    )
    published: ClassVar = {
        "sac+logos+ava1-l14-linearMSE.pth": _HEAD,
        "model.safetensors": _OPENAI_CLIP,
        "config.json": _OPENAI_CLIP,
    }

    def load(self) -> None:
        """Read the network and the head."""
        super().load()
        self.head = build_linear_head(read_weights(self.weights), "layers.", self.weights, self.device)

    def _preprocess(self, images: Tensor) -> Tensor:
        size = self.model.config.vision_config.image_size
        return normalize_pixels(
            torch.stack([to_tensor(resize_and_crop(picture, size, round_half)) for picture in to_pil(images)])
        )

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch."""
        return self.head(self._embed_images(images))[:, 0]
