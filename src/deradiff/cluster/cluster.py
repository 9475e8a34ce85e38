"""A cluster, as a run takes it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deradiff.cluster.settings import ClusterSettings

if TYPE_CHECKING:
    from deradiff.align.self_label import PromptSampler
    from deradiff.anchor.location import Location
    from deradiff.cluster.sampler import ClusterSampler
    from deradiff.rewards.scorer import Dtype
    from deradiff.runs.batch_scores import BatchScorer
    from deradiff.runs.store import Store

Check = Callable[[], object]  # called every few seconds while workers work; what it raises ends the work


def _never_stops() -> None:
    pass


class Cluster(ClusterSettings):
    """A Ray cluster, given to a `deradiff.Run` as ``cluster=``: its workers then make the images, and score them.

    The settings are those of `ClusterSettings`.
    """

    @contextmanager
    def sampler(
        self, store: "Store", *, device: str = "auto", offload: bool = False, check: Check = _never_stops
    ) -> "Generator[ClusterSampler]":
        """What samples blocks of a run; the workers start with the first block and end with this context.

        Args:
            store: of the run.
            device: of the workers, as `deradiff.Run` takes it.
            offload: likewise.
            check: called every few seconds; what it raises ends the work.
        """
        from deradiff.cluster.sampler import ClusterSampler

        sampler = ClusterSampler(self, store, device, offload, check)
        try:
            yield sampler
        finally:
            sampler.close()

    @contextmanager
    def scorer(
        self, reward: str, *, device: str = "auto", dtype: "Dtype" = "float32", check: Check = _never_stops
    ) -> "Generator[BatchScorer]":
        """What scores batches of images; the workers start with the first batch and end with the last.

        Args:
            reward: as ``load_reward`` takes it; each worker loads it once.
            device: of the workers, as ``load_reward`` takes it.
            dtype: of a scorer's weights.
            check: called every few seconds; what it raises ends the work.
        """
        from deradiff.cluster.ray_pool import RayPool
        from deradiff.cluster.scorer import score_on
        from deradiff.cluster.scoring_job import ScoringJob

        job = ScoringJob.of(reward, device, dtype)
        yield lambda batches: score_on(lambda: RayPool(self, job, check), batches, self.tries)

    def prompt_sampler(self, model: str, location: "Location", dtype: str) -> "PromptSampler":
        """What samples prompts on a model without an anchor, as `deradiff.align.self_label` takes it.

        Args:
            model: a folder, .safetensors file or hub id that the workers find too.
            location: where in it the model lies.
            dtype: of its weights.
        """
        from deradiff.cluster.prompt_job import PromptJob, sample_on
        from deradiff.cluster.ray_pool import RayPool

        job = PromptJob.of(model, location, dtype)
        return lambda requests: sample_on(lambda: RayPool(self, job), requests, self.tries)


@dataclass(frozen=True)
class Interruptible:
    """A cluster whose work ends where a function raises, such as one that asks whether somebody pressed Stop.

    Attributes:
        cluster: that works.
        check: called every few seconds; what it raises ends the work.
    """

    cluster: Cluster
    check: Check

    @contextmanager
    def sampler(self, store: "Store", *, device: str, offload: bool) -> "Generator[ClusterSampler]":
        """As of the cluster."""
        with self.cluster.sampler(store, device=device, offload=offload, check=self.check) as sampler:
            yield sampler

    @contextmanager
    def scorer(self, reward: str, *, device: str, dtype: "Dtype") -> "Generator[BatchScorer]":
        """As of the cluster."""
        with self.cluster.scorer(reward, device=device, dtype=dtype, check=self.check) as scorer:
            yield scorer
