"""Scoring the images of a run, from their files; scores belong to a cell and the content of its image."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch
from PIL import Image as PILImage
from torch import Tensor

from deradiff.errors import RewardError, RunFolderError
from deradiff.results import RewardInfo
from deradiff.rewards import Reward, card_of, load_reward, reward_name, scores
from deradiff.rewards.cache import Image as Scored
from deradiff.rewards.cache import cached_scores
from deradiff.rewards.group_metrics import SIDE, GroupMetric
from deradiff.rewards.pool import pooled
from deradiff.rewards.scorer import Dtype
from deradiff.runs.cells import Cell, Request, image_name
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import Image, current_groups, group_hash, group_of, is_current, journalled_images
from deradiff.runs.store import Store
from deradiff.sampling import to_pixels

Progress = Callable[[int], None]

_BATCH = 8  # images scored and recorded together


@dataclass(frozen=True)
class _Pending:
    """What a reward has to look at.

    Attributes:
        images: on disk, without a current score.
        groups: of a metric that compares images, all images of each group that has any of these.
    """

    images: list[Image]
    groups: list[list[Image]]


def score(
    store: Store,
    reward: str,
    progress: Progress = lambda count: None,
    *,
    device: str = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Score every image of a run that has no score of this reward yet, from its file.

    Args:
        store: of the run, finished or not.
        reward: as ``load_reward`` takes it; scores are kept under its ``reward_name``.
        progress: told how many more images are done, those with a score first.
        device: where a scorer's network runs.
        dtype: of its weights.

    Raises:
        RewardError: no such reward, it raised, scores that aren't one finite number per image, or a run in which no
            image has the others (seeds, lam = 0) that the reward compares it with.
        RunFolderError: no image yet, an image is damaged, or another process scores the run.
    """
    function, name = load_reward(reward, device=device, dtype=dtype), reward_name(reward)
    card = card_of(function)
    info = card.info if card else RewardInfo()
    with store.scoring() as writer:
        images, pending = _pending(store, name, function)
        progress(len(images) - len(pending.images))
        if isinstance(function, GroupMetric):
            records = _group_records(store, name, info, function, pending)
        else:
            records = _single_records(store, name, info, function, pending.images)
        for record in records:
            writer.append(record)
            progress(len(record.keys))


def check_group(reward: Reward, requests: Sequence[Request]) -> None:
    """Refuse, before hours of sampling, a metric that compares with images that none of a run's requests asks for.

    Raises:
        RewardError: says which.
    """
    if isinstance(reward, GroupMetric):
        reward.check(sorted({value for own in requests for value in getattr(own, f"{reward.varies}s")}))


def read_image(file: Path, digest: str) -> Tensor:
    """The pixels (3, H, W) in [0, 1] of an image whose file has this sha256.

    Raises:
        RunFolderError: it is missing, or has another.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        if sha256(content).hexdigest() == digest:
            return to_pixels(PILImage.open(io.BytesIO(content)))
        problem = "not the file that was journalled"
    raise RunFolderError(
        f"the image {file} is missing or damaged ({problem}); delete it, run the same deradiff sweep again, then score"
    )


def _pending(store: Store, name: str, function: Reward) -> tuple[list[Image], _Pending]:
    """All images on disk, and what isn't scored among them."""
    journalled = journalled_images(store)
    held = store.images_on_disk().holds([image.key for image in journalled.values()])
    images = {image.key: image for image, there in zip(journalled.values(), held, strict=True) if there}
    if not images:
        raise RunFolderError(f"{store.folder} has no images yet; run the same deradiff sweep or search again")
    metric = function if isinstance(function, GroupMetric) else None
    current = {} if metric is None else current_groups(journalled.values(), metric.varies)
    scored: set[str] = set()
    for record in store.scores():
        if record.reward == name:
            scored |= {
                key
                for number, key in enumerate(record.keys)
                if key in images and is_current(record, number, images[key], lambda varies: current)
            }
    lacking = [image for key, image in images.items() if key not in scored]
    return list(images.values()), _Pending(lacking, [] if metric is None else _groups(journalled, lacking, metric))


def _groups(images: Mapping[Cell, Image], lacking: list[Image], metric: GroupMetric) -> list[list[Image]]:
    wanted = {group_of(image.cell, metric.varies) for image in lacking}
    members: dict[Cell, list[Image]] = {}
    for image in images.values():
        members.setdefault(group_of(image.cell, metric.varies), []).append(image)
    reasons = [metric.unsupported_reason(_values(group, metric)) for group in members.values()]
    if wanted and None not in reasons:
        raise RewardError(f"{metric.card.name} {reasons[0]}")
    return [
        sorted(own, key=lambda image: getattr(image.cell, metric.varies))
        for group, own in members.items()
        if group in wanted
    ]


def _values(group: Iterable[Image], metric: GroupMetric) -> list[float]:
    return [getattr(image.cell, metric.varies) for image in group]


def _single_records(
    store: Store, name: str, info: RewardInfo, reward: Reward, images: list[Image]
) -> Iterator[ScoreRecord]:
    """Scores of images by themselves; those of one size together."""
    rest = iter(images)
    while batch := list(islice(rest, _BATCH)):
        pixels = [read_image(store.folder / image_name(image.key), image.sha256) for image in batch]
        shown = [Scored(own, image.sha256, image.cell.prompt) for own, image in zip(pixels, batch, strict=True)]
        yield _record(name, info, batch, cached_scores(name, reward, shown))


def _group_records(
    store: Store, name: str, info: RewardInfo, metric: GroupMetric, pending: _Pending
) -> Iterator[ScoreRecord]:
    """Values of images among those of their groups."""
    for group in pending.groups:
        digest = group_hash(image.sha256 for image in group)
        values: list[float] | list[None] = [None] * len(group)
        if metric.unsupported_reason(_values(group, metric)) is None:
            files = ((store.folder / image_name(image.key), image.sha256) for image in group)
            pixels = torch.cat([pooled(read_image(*file)[None], SIDE) for file in files])
            values = scores(
                name,
                lambda pixels, prompts, own=group: metric.function(pixels, _values(own, metric)),
                pixels,
                [image.cell.prompt for image in group],
            )
        yield _record(name, info, group, values).model_copy(
            update={"varies": metric.varies, "groups": (digest,) * len(group)}
        )


def _record(name: str, info: RewardInfo, images: list[Image], values: list[float] | list[None]) -> ScoreRecord:
    return ScoreRecord(
        reward=name,
        info=info,
        keys=tuple(image.key for image in images),
        sha256=tuple(image.sha256 for image in images),
        scores=tuple(values),
    )
