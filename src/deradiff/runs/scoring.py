"""Scoring the images of a run, from their files; scores belong to a cell and the content of its image."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from deradiff.devices import pick_device
from deradiff.errors import PartialScoresError, RewardError, RunFolderError, first_few
from deradiff.reading import read_whole
from deradiff.results import RewardInfo
from deradiff.rewards import Reward, card_of, load_reward, reward_name, unscorable_prompts
from deradiff.rewards.cache import ImageKey, read_scores, write_scores
from deradiff.rewards.group_metrics import GroupMetric
from deradiff.rewards.scorer import Dtype
from deradiff.runs.batch_scores import Batch, BatchScorer, BatchScores, score_batch
from deradiff.runs.cells import Cell, Request, image_name
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import Image, current_groups, group_hash, group_of, is_current, journalled_images
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer

if TYPE_CHECKING:
    from deradiff.runs.backend import Backend

logger = logging.getLogger("deradiff")

Progress = Callable[[int], None]

_BLACKENED = "the pipeline's safety checker made the image black"
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
    backend: "Backend | None" = None,
) -> None:
    """Score every image of a run that has no score of this reward yet, from its file.

    Args:
        store: of the run, finished or not.
        reward: as ``load_reward`` takes it; scores are kept under its ``reward_name``.
        progress: called with how many more images are done, those with a score first.
        device: where a scorer's network runs; ``auto`` is an accelerator where there is one.
        dtype: of its weights.
        backend: computes the scores; None computes them in this process.

    Raises:
        PartialScoresError: the reward failed on some images, by raising or by scores that aren't one finite number
            per image; all others are scored.
        RewardError: no such reward, it failed on every image, or a run in which no image has the others (seeds,
            lam = 0) that the reward compares it with.
        RunFolderError: no image yet, an image is damaged, or another process scores the run.
        ClusterError: of a cluster as the backend: it can't be reached, or no worker can begin.
    """
    here = "cpu" if backend is not None else pick_device(device)  # with a backend no weights are read here
    function, name = load_reward(reward, device=here, dtype=dtype), reward_name(reward)
    failures = dict[Image, RewardError]()
    with (
        store.scoring() as writer,
        nullcontext(_scorer_here(name, function))
        if backend is None
        else backend.scorer(reward, device=device, dtype=dtype) as scorer,
    ):
        images, pending = _pending(store, name, function)
        scored = len(images) - len(pending.images)
        progress(scored)
        if isinstance(function, GroupMetric):
            records = _group_records(store, name, function, pending.groups, scorer)
        else:
            records = _single_records(store, name, function, pending.images, failures, scorer)
        for record in records:
            writer.append(record)
            scored += len(record.keys)
            progress(len(record.keys))
        if failures and scored:  # noted, so that the table knows these gaps for what they are
            _note_failures(store, writer, name, function, failures)
    if failures:
        _raise_failures(name, failures, scored)


def _scorer_here(name: str, reward: Reward) -> BatchScorer:
    def scorer(batches: Iterator[Batch]) -> Iterator[tuple[Batch, BatchScores]]:
        return ((batch, score_batch(name, reward, batch)) for batch in batches)

    return scorer


def _note_failures(
    store: Store, writer: Writer, name: str, reward: Reward, failures: Mapping[Image, RewardError]
) -> None:
    noted = {
        entry
        for record in store.scores()
        if record.reward == name
        for entry, value in zip(zip(record.keys, record.sha256, strict=True), record.scores, strict=True)
        if value is None
    }
    if new := [image for image in failures if (image.key, image.sha256) not in noted]:
        writer.append(_record(name, reward, new, [None] * len(new)))


def _raise_failures(name: str, failures: Mapping[Image, RewardError], scored: int) -> None:
    first = next(iter(failures.values()))
    if not scored:
        raise first
    prompts = dict.fromkeys(image.cell.prompt for image in failures)
    count, several = len(failures), len(prompts) != 1
    raise PartialScoresError(
        f"{name} failed on {count} image{'s' * (count != 1)} of {len(prompts)} prompt{'s' * several} "
        f"({first_few(prompts)}): {str(first).rstrip('.')}. The {scored} other images are scored; recommend, search "
        f"and report leave {'these prompts' if several else 'this prompt'} out of {name}",
        prompts,
    ) from first


def check_group(reward: Reward, requests: Sequence[Request]) -> None:
    """Check, before hours of sampling, that a run's requests ask for the images that a metric compares with.

    Raises:
        RewardError: says which.
    """
    if isinstance(reward, GroupMetric):
        reward.check(sorted({value for request in requests for value in getattr(request, f"{reward.varies}s")}))


def read_content(folder: Path, image: Image) -> bytes:
    """The file of an image of a run folder.

    Raises:
        RunFolderError: it is missing, another one than was journalled, or lies outside the folder.
    """
    file = folder / image_name(image.key)
    problem, content = "not the file that was journalled", b""
    try:
        content = read_whole(file, "the image", inside=folder)
    except RunFolderError as error:
        problem = str(error)
    if sha256(content).hexdigest() == image.sha256:
        return content
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
                if key in images
                and (record.scores[number] is not None or metric is not None)  # where a reward failed it is asked again
                and is_current(record, number, images[key], lambda varies: current)
            }
    lacking = [image for key, image in images.items() if key not in scored]
    return list(images.values()), _Pending(lacking, [] if metric is None else _groups(journalled, lacking, metric))


def _groups(images: Mapping[Cell, Image], lacking: list[Image], metric: GroupMetric) -> list[list[Image]]:
    changed = {group_of(image.cell, metric.varies) for image in lacking}
    members: dict[Cell, list[Image]] = {}
    for image in images.values():
        members.setdefault(group_of(image.cell, metric.varies), []).append(image)
    reasons = [metric.unsupported_reason(_values(group, metric)) for group in members.values()]
    if changed and None not in reasons:
        raise RewardError(f"{metric.card.name} {reasons[0]}")
    return [
        sorted(members_of_group, key=lambda image: getattr(image.cell, metric.varies))
        for group, members_of_group in members.items()
        if group in changed
    ]


def _values(group: Iterable[Image], metric: GroupMetric) -> list[float]:
    return [getattr(image.cell, metric.varies) for image in group]


def _single_records(
    store: Store,
    name: str,
    reward: Reward,
    images: list[Image],
    failures: dict[Image, RewardError],
    scorer: BatchScorer,
) -> Iterator[ScoreRecord]:
    """Scores of images by themselves; those that the reward fails on are put among the failures."""
    reasons = unscorable_prompts(reward, dict.fromkeys(image.cell.prompt for image in images))
    failures |= {image: RewardError(reasons[image.cell.prompt]) for image in images if image.cell.prompt in reasons}
    failures |= {image: RewardError(_BLACKENED) for image in images if image.blackened}
    scorable = [image for image in images if image not in failures]
    cached = dict(zip(scorable, read_scores(reward, [_cache_key(image) for image in scorable]), strict=True))
    known = {image: value for image, value in cached.items() if value is not None}
    for part in _parts(known):
        yield _record(name, reward, part, [known[image] for image in part])
    unknown = [image for image in scorable if image not in known]
    for batch, scores in scorer(_read(store, part) for part in _parts(unknown)):
        if scores.errors and not failures:
            first = next(iter(scores.errors.values()))
            logger.warning("%s; of a batch with such an image, each is scored by itself", first)
        failures |= {batch.images[index]: RewardError(error) for index, error in scores.errors.items()}
        new = {image: value for image, value in zip(batch.images, scores.values, strict=True) if value is not None}
        if new:
            write_scores(reward, {_cache_key(image): value for image, value in new.items()})
            yield _record(name, reward, list(new), list(new.values()))


def _group_records(
    store: Store, name: str, metric: GroupMetric, groups: list[list[Image]], scorer: BatchScorer
) -> Iterator[ScoreRecord]:
    """Values of images among those of their groups."""
    measurable = list[list[Image]]()
    for group in groups:
        if metric.unsupported_reason(_values(group, metric)) is None and not any(image.blackened for image in group):
            measurable.append(group)
        else:
            yield _record(name, metric, group, [None] * len(group))
    for batch, scores in scorer(_read(store, group) for group in measurable):
        if scores.errors:
            raise RewardError(next(iter(scores.errors.values())))
        yield _record(name, metric, batch.images, scores.values)


def _read(store: Store, images: Sequence[Image]) -> Batch:
    return Batch(tuple(images), tuple(read_content(store.folder, image) for image in images))


def _parts(images: Iterable[Image]) -> Iterator[list[Image]]:
    left = iter(images)
    while part := list(islice(left, _BATCH)):
        yield part


def _cache_key(image: Image) -> ImageKey:
    return ImageKey(image.sha256, image.cell.prompt)


def _record(name: str, reward: Reward, images: Sequence[Image], values: Sequence[float | None]) -> ScoreRecord:
    card = card_of(reward)
    record = ScoreRecord(
        reward=name,
        info=card.info if card else RewardInfo(),
        keys=tuple(image.key for image in images),
        sha256=tuple(image.sha256 for image in images),
        scores=tuple(values),
    )
    if not isinstance(reward, GroupMetric):
        return record
    digest = group_hash(image.sha256 for image in images)
    return record.model_copy(update={"varies": reward.varies, "groups": (digest,) * len(images)})
