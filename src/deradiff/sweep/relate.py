"""Scoring by metrics that look at the images of whole prompts together."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from deradiff.rewards import Reward, scores
from deradiff.rewards.pool import pooled
from deradiff.rewards.relational import SIDE, Relational
from deradiff.sweep.batches import Batch
from deradiff.sweep.journal import Journal
from deradiff.sweep.pictures import read_picture
from deradiff.sweep.plan import Plan
from deradiff.sweep.records import BatchRecord


def check_fit(reward: Reward, plan: Plan) -> None:
    """Refuse, before hours of sampling, a reward that compares with images a plan doesn't have.

    Raises:
        RewardError: says which.
    """
    if isinstance(reward, Relational):
        reward.among(len(plan.seeds), plan.lams)


def together(plan: Plan) -> Iterator[list[Batch]]:
    """The batches that hold all seeds of the same prompts at one guidance, by seed."""
    for _, row in groupby(plan.batches(), key=lambda batch: batch.prompts):  # a prompt's batches are neighbours
        for _, group in groupby(sorted(row, key=lambda batch: batch.guidance), key=lambda batch: batch.guidance):
            yield list(group)


def related(
    name: str, reward: Reward, journal: Journal, batches: Sequence[Batch], records: Sequence[BatchRecord]
) -> list[list[float]]:
    """What the images of batches that belong together score, batch by batch.

    Args:
        name: of the reward, for errors.
        reward: of ``Relational.among``.
        journal: of the run.
        batches: of `together`.
        records: theirs.

    Raises:
        RewardError: as ``scores``.
        PlanError: an image is missing or damaged.
    """
    plan, prompts = journal.plan, batches[0].prompts
    parts = [_small(journal, batch, record) for batch, record in zip(batches, records, strict=True)]
    pixels = torch.cat(parts, dim=1)  # prompts, seeds, lams, 3, h, w
    texts = [plan.prompts[prompt] for prompt in prompts for _ in range(pixels.shape[1] * pixels.shape[2])]
    values = torch.tensor(scores(name, reward, pixels.flatten(0, 2), texts), dtype=torch.float64)
    table = values.view(pixels.shape[:3])
    return [table[:, batch.seeds.start : batch.seeds.stop].flatten().tolist() for batch in batches]


def _small(journal: Journal, batch: Batch, record: BatchRecord) -> Tensor:
    """The pictures of a batch, each pooled as soon as it is read, (prompts, seeds, lams, 3, h, w)."""
    files = zip(batch.cells(journal.plan), record.sha256, strict=True)
    pictures = [pooled(read_picture(journal.image(cell), digest)[None], SIDE) for cell, digest in files]
    return torch.cat(pictures).unflatten(0, (len(batch.prompts), len(batch.seeds), -1))
