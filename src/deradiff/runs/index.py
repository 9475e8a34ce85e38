"""Which cells there are, of millions in little memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Index:
    """Some cells, such as those that are journalled: 8 bytes a cell.

    Attributes:
        hashes: ascending, the first 64 bits of their keys.
    """

    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, hashes: bytes | bytearray) -> "Index":
        """An index of hashes (`first_bytes`) in any order, with repeats."""
        return cls(np.sort(np.frombuffer(hashes, ">u8").astype(np.uint64)))

    def holds(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each key is among them."""
        hashes = np.frombuffer(first_bytes(keys), ">u8").astype(np.uint64)
        held = np.zeros(len(hashes), bool)
        if len(self.hashes):
            order = np.argsort(hashes)  # looked up one after another, they find their positions in the cache
            positions = np.searchsorted(self.hashes, hashes[order])
            held[order] = self.hashes[np.minimum(positions, len(self.hashes) - 1)] == hashes[order]
        return held


def first_bytes(keys: Sequence[str]) -> bytes:
    """The first 8 bytes of each key."""
    return bytes.fromhex("".join([key[:16] for key in keys]))
