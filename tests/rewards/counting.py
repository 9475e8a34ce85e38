"""A published model, as far as the cache can tell, that counts what it is asked."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from deradiff.rewards.card import Card
from deradiff.rewards.scorer import Scorer

CARD = Card(name="Counting", measures="red", range="0 to 1", model="nobody/red", licence="none", citation="none")


class Counting(Scorer):
    card: ClassVar = CARD
    published: ClassVar = {}
    asked: ClassVar[list[str]] = []

    def load(self) -> None:
        pass

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``[batch]`` of one batch."""
        self.asked.extend(prompts)
        return images[:, 0].mean((1, 2))
