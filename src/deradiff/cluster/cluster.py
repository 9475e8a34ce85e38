"""A cluster, as a run takes it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deradiff.cluster.settings import ClusterSettings

if TYPE_CHECKING:
    from deradiff.cluster.sampler import ClusterSampler
    from deradiff.runs.store import Store


class Cluster(ClusterSettings):
    """A Ray cluster, given to a `deradiff.Run` as ``cluster=``: its images are then made by the cluster's workers.

    The settings are those of `ClusterSettings`.
    """

    @contextmanager
    def sampler(self, store: "Store", *, device: str = "auto", offload: bool = False) -> "Generator[ClusterSampler]":
        """What samples blocks of a run; the workers start with the first block and end with this context.

        Args:
            store: of the run.
            device: of the workers, as `deradiff.Run` takes it.
            offload: likewise.
        """
        from deradiff.cluster.sampler import ClusterSampler

        sampler = ClusterSampler(self, store, device, offload)
        try:
            yield sampler
        finally:
            sampler.close()
