"""Scoring on a worker: the reward is loaded once, each batch of images becomes scores."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from deradiff.cluster.worker import DoBatch
from deradiff.devices import pick_device
from deradiff.errors import RewardError, RewardUnavailableError
from deradiff.local_modules import allow_named_in, folder_of
from deradiff.rewards import Reward, load_reward, reward_name
from deradiff.rewards.scorer import Dtype, Scorer
from deradiff.runs.batch_scores import Batch, BatchScores, score_batch


@dataclass(frozen=True)
class Unavailable:
    """A worker's answer where the reward can score nothing at present, such as by a server that is down."""

    reason: str


@dataclass(frozen=True)
class ScoringJob:
    """Scoring images by one reward.

    Attributes:
        reward: as ``load_reward`` takes it.
        folder: from which a ``module:function`` may be imported; None where the user named none.
        device: as ``load_reward`` takes it; ``auto`` is an accelerator where the worker has one.
        dtype: of a scorer's weights.
    """

    reward: str
    folder: str | None
    device: str
    dtype: Dtype

    @classmethod
    def of(cls, reward: str, device: str, dtype: Dtype) -> "ScoringJob":
        """The job as this process would do it."""
        return cls(reward, folder_of(reward), device, dtype)

    @contextmanager
    def open(self) -> Generator[tuple[DoBatch, None]]:
        """Load the reward.

        Raises:
            RewardError: it can't be loaded on this machine.
        """
        reward, name = self._load(), reward_name(self.reward)

        def score(batches: list[Batch], context: None) -> BatchScores | Unavailable:
            (batch,) = batches  # the scheduler hands out one at a time
            try:
                return score_batch(name, reward, batch)
            except RewardUnavailableError as error:
                return Unavailable(str(error))

        yield score, None

    def _load(self) -> Reward:
        if self.folder is not None:
            allow_named_in([self.reward], self.folder)
        try:
            reward = load_reward(self.reward, device=pick_device(self.device), dtype=self.dtype)
        except RewardError as error:
            if ":" not in reward_name(self.reward):
                raise
            raise RewardError(
                f"{error}. A worker imports it from {self.folder or 'PYTHONPATH'}: let the workers see that folder, or "
                "install the module where they run"
            ) from error
        if isinstance(reward, Scorer):
            reward.prepare()
        return reward
