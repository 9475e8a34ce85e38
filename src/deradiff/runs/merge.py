"""The union of several runs of one recipe: shards, colleagues' parts, other machines' parts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from deradiff.errors import RunFolderError
from deradiff.reading import read_whole
from deradiff.runs.cells import image_name
from deradiff.runs.legacy import is_legacy, open_run_folder
from deradiff.runs.recipe import Recipe, check_same_recipe, differing_settings
from deradiff.runs.records import CellsRecord, ScoreRecord
from deradiff.runs.results import journalled_images
from deradiff.runs.store import Store
from deradiff.runs.votes import add_votes, cells_of_vote, read_votes
from deradiff.runs.writer import Writer


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        images: how many were copied.
        contradictions: cells that two runs have different images of; the first run's is kept. As text, one each.
    """

    images: int
    contradictions: tuple[str, ...]


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Copy what other runs of one recipe hold, their scores and votes, into a run; those stay as they are.

    An image that the run has already keeps its bytes. A cell of which two runs hold different images is reported; the
    other image isn't taken, nor are its scores and the votes on it.

    Args:
        folders: of the runs, the first one's images counting most.
        out: of the run to copy into; made where there is none.

    Raises:
        RunFolderError: runs of different recipes, one run given twice, a damaged run or image, or a folder that
            can't be written.
    """
    sources = [open_run_folder(folder) for folder in _check_distinct(folders)]
    first = sources[0]
    for other in sources[1:]:
        if differing := differing_settings(first.recipe, other.recipe, "is {} in the first and {} in the second"):
            raise RunFolderError(
                f"{first.folder} and {other.folder} are runs of different recipes ({'; '.join(differing)}); merge runs "
                "of one recipe"
            )
    target = Store.at(out, _recipe_for(first, out))
    copied, contradictions = 0, list[str]()
    with target.writing() as writer, target.scoring() as scores:
        known = {image.key: image.sha256 for image in journalled_images(target).values()} if target.exists(out) else {}
        for source in sources:
            if source.folder.resolve() == out.resolve():
                continue
            for request in source.requests():
                target.add_request(request)
            latest = {image.key: image.sha256 for image in journalled_images(source).values()}
            for record in source.records():
                current = [number for number, key in enumerate(record.keys) if latest[key] == record.sha256[number]]
                copied += _take(source, target, writer, record.select(current), known, contradictions)
            there = {entry for record in target.scores() for entry in _entries(record)}
            for record in source.scores():
                entries = [entry for entry in _entries(record) if known.get(entry[1]) == entry[2]]
                if not there.issuperset(entries):
                    scores.append(record)
            _take_votes(source, target, {key for key, digest in latest.items() if known.get(key) == digest})
    return Merged(copied, tuple(contradictions))


def _take_votes(source: Store, target: Store, taken: set[str]) -> None:
    """Add the votes on pairs of images that were both taken."""
    there = set(read_votes(target))
    keys = {vote: {source.keys(cell) for cell in cells_of_vote(vote)} for vote in read_votes(source)}
    add_votes(target, [vote for vote in keys if vote not in there and taken.issuperset(keys[vote])])


def _check_distinct(folders: Sequence[Path]) -> Sequence[Path]:
    if not folders:
        raise RunFolderError("nothing to merge: give one run folder or more")
    first_by_target = dict[Path, Path]()
    for folder in folders:
        first = first_by_target.setdefault(folder.resolve(), folder)
        if first is not folder:
            both = f"{first}" if str(first) == str(folder) else f"{first} and {folder}"
            raise RunFolderError(f"{both}: the same run is given twice; name each run once")
    return folders


def _recipe_for(source: Store, out: Path) -> Recipe:
    """The recipe of the run that is there; or a source's, with its relative models named from the new folder."""
    if Store.exists(out) or is_legacy(out):
        written = open_run_folder(out).recipe
        check_same_recipe(out, written, source.recipe)
        return written
    names = {}
    for what in ("model", "anchor"):
        name = getattr(source.recipe, what)
        located = source.located(name)
        names[what] = name if located == name else os.path.relpath(located, os.path.realpath(out))
    return source.recipe.model_copy(update=names)


def _entries(record: ScoreRecord) -> list[tuple[str, str, str, str, bool]]:
    """Which images a record scores: reward, key, hash of the file, hash of the group, whether there is a score."""
    groups = record.groups or ("",) * len(record.keys)
    return [
        (record.reward, key, digest, group, score is not None)
        for key, digest, group, score in zip(record.keys, record.sha256, groups, record.scores, strict=True)
    ]


def _take(
    source: Store, target: Store, writer: Writer, record: CellsRecord, known: dict[str, str], contradictions: list[str]
) -> int:
    """Copy the images of a record that the target lacks; returns how many."""
    taken, copied = list[int](), 0
    for number, (key, digest) in enumerate(zip(record.keys, record.sha256, strict=True)):
        file = source.folder / image_name(key)
        if known.get(key, digest) != digest:
            cell = record.values()[number]
            contradictions.append(
                f"{cell.prompt!r}, seed {cell.seed}, lam {cell.lam:g}: another image in {source.folder}"
            )
        elif file.exists() and (key not in known or not (target.folder / image_name(key)).exists()):
            content = read_whole(file, "the image", inside=source.folder)
            if sha256(content).hexdigest() != digest:
                raise RunFolderError(f"the image {file} isn't the one that was journalled; delete it, then merge again")
            writer.save(target.folder / image_name(key), content)
            taken.append(number)
            copied += 1
        elif key not in known:
            taken.append(number)
    for number in taken:
        known[record.keys[number]] = record.sha256[number]
    if taken:
        writer.append(record.select(taken))
    return copied
