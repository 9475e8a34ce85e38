"""Where a run's images are made and scored, if not in this process."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from deradiff.rewards.scorer import Dtype
    from deradiff.runs.batch_scores import BatchScorer
    from deradiff.runs.runner import BlockSampler
    from deradiff.runs.store import Store


class Backend(Protocol):
    """Other processes than this one, such as those of a `deradiff.cluster.Cluster`."""

    def sampler(self, store: "Store", *, device: str, offload: bool) -> "AbstractContextManager[BlockSampler]":
        """What samples blocks of a run, while the context lasts."""
        ...

    def scorer(self, reward: str, *, device: str, dtype: "Dtype") -> "AbstractContextManager[BatchScorer]":
        """What scores batches of images by a reward, while the context lasts."""
        ...
