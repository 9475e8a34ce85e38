"""Scoring the images of a finished run, from their files."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from deradiff.results import RewardInfo
from deradiff.rewards import Reward, card_of, load_reward, reward_name
from deradiff.rewards.cache import Image, cached_scores
from deradiff.rewards.relational import Relational
from deradiff.rewards.scorer import Dtype
from deradiff.sweep.batches import Batch
from deradiff.sweep.journal import Journal
from deradiff.sweep.pictures import read_picture
from deradiff.sweep.records import BatchRecord, ScoreRecord
from deradiff.sweep.relate import related, together
from deradiff.sweep.table import lacking


def score(
    journal: Journal,
    reward: str,
    progress: Callable[[int], None] = lambda count: None,
    *,
    device: str = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Score every image of a finished run that has no score of this reward yet, from its file.

    Args:
        journal: of the run.
        reward: as ``load_reward`` takes it; scores are kept under its ``reward_name``.
        progress: told how many more images are done.
        device: where a scorer's network runs.
        dtype: of its weights.

    Raises:
        RewardError: no such reward, it raised, scores that aren't one finite number per image, or a run without the
            seeds or the lam = 0 that the reward compares with.
        PlanError: the run isn't finished, an image is missing or damaged, or another process scores the run.
    """
    found, reward = load_reward(reward, device=device, dtype=dtype), reward_name(reward)
    plan, index, card = journal.plan, journal.index(), card_of(found)
    if isinstance(found, Relational):
        groups, ask = together(plan), partial(related, reward, found.among(len(plan.seeds), plan.lams), journal)
    else:
        groups, ask = ([batch] for batch in plan.batches()), partial(_alone, reward, found, journal)
    if missing := sum(plan.batch(int(place)).count(plan) for place in np.flatnonzero(~index.done)):
        raise lacking(journal, missing, plan.count)
    scored = np.full(plan.batch_count, -1)  # the edition whose scores are known
    for _, earlier in journal.scores:
        if earlier.reward == reward:
            scored[earlier.batch] = earlier.edition
    make = partial(ScoreRecord, reward=reward, info=card.info if card else RewardInfo())
    with journal.scoring() as writer:
        for group in groups:
            records = [index[batch.index] for batch in group]
            known = [scored[record.batch] == record.edition for record in records]
            if not all(known):
                values = ask(group, records)
                # known ones first: they are known by their own images alone, so if this is killed halfway, only a
                # batch that isn't known yet tells that its whole group is to be scored anew
                for place in sorted(range(len(group)), key=lambda place: not known[place]):
                    record = records[place]
                    writer.append(make(batch=record.batch, edition=record.edition, scores=values[place]))
            for batch in group:
                progress(batch.count(plan))


def _alone(
    name: str, reward: Reward, journal: Journal, batches: Sequence[Batch], records: Sequence[BatchRecord]
) -> list[list[float]]:
    """What the images of batches score each by itself, batch by batch."""
    prompts = journal.plan.prompts
    return [
        cached_scores(
            name,
            reward,
            [
                Image(read_picture(journal.image(cell), digest), digest, prompts[cell.prompt])
                for cell, digest in zip(batch.cells(journal.plan), record.sha256, strict=True)
            ],
        )
        for batch, record in zip(batches, records, strict=True)
    ]
