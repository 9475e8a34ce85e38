"""What scorers by CLIP share: the two towers of transformers' CLIPModel, and the cosine between them."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import normalize

from deradiff.rewards.files import read_weights
from deradiff.rewards.network import filled, tokenizer
from deradiff.rewards.preprocess import by_config, to_pil
from deradiff.rewards.scorer import Scorer

if TYPE_CHECKING:
    from transformers import CLIPModel


class ClipScorer(Scorer):
    """A scorer by CLIP's embeddings, published in the layout of transformers."""

    def _load(self) -> None:
        self.model: Any = self._network()
        if "preprocessor_config.json" in self.files:
            self.preprocessor = json.loads(self.files["preprocessor_config.json"].read_text())
        if "tokenizer.json" in self.files:
            length = self.model.config.text_config.max_position_embeddings
            self.tokenize = tokenizer(self.files["tokenizer.json"], "<|endoftext|>", length, self.device)

    def _network(self) -> "CLIPModel":
        from transformers import CLIPConfig, CLIPModel

        config = CLIPConfig.from_dict(json.loads(self.files["config.json"].read_text()))
        file = self.files["model.safetensors"]
        return filled(lambda: CLIPModel(config), read_weights(file), file, self.dtype, self.device)

    def _pixels(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) for the vision tower."""
        return by_config(to_pil(images), self.preprocessor)

    def _of_images(self, images: Tensor) -> Tensor:
        """Embeddings (N, D) of length 1."""
        pixels = self._pixels(images).to(self.device, self.dtype)
        return normalize(self.model.get_image_features(pixel_values=pixels).pooler_output.float(), dim=-1)

    def _of_texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of length 1."""
        # attention is causal and the end of the text is what is read: padding after it changes nothing, masked or not
        tokens = self.tokenize(prompts)["input_ids"]
        return normalize(self.model.get_text_features(input_ids=tokens).pooler_output.float(), dim=-1)

    def _cosines(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(N,), of each image with its own prompt."""
        return (self._of_images(images) * self._of_texts(prompts)).sum(-1)
