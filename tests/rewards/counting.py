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

    def _load(self) -> None:
        pass

    def _batch(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.asked.extend(prompts)
        return images[:, 0].mean((1, 2))
