"""Votes in a run folder: ``votes.jsonl``, a line a vote, appended by any number of raters and processes at once."""

from collections.abc import Iterable

from deradiff.errors import RunFolderError
from deradiff.reading import check_inside, exists, parse_model, read_lines
from deradiff.runs.cells import Cell
from deradiff.runs.store import Store
from deradiff.votes import Vote
from deradiff.writing import append_line, cut_torn_line, locked, write_errors

NAME = "votes.jsonl"
_SECONDS = 60  # to wait for another process that adds a vote


def read_votes(store: Store) -> list[Vote]:
    """All votes on the images of a run, oldest first, each once.

    Raises:
        RunFolderError: a line is damaged; says which.
    """
    path = store.folder / NAME
    if not exists(path, "the votes"):
        return []
    check_inside(store.folder, path)
    lines = enumerate(read_lines(path), start=1)
    votes = [parse_model(Vote, line, f"{path}, line {number},", "delete that line") for number, (_, line) in lines]
    return list(dict.fromkeys(votes))


def add_votes(store: Store, votes: Iterable[Vote]) -> None:
    """Add votes, on disk before this returns.

    Raises:
        RunFolderError: no such images in the run, or the folder can't be written.
    """
    new = list(votes)
    for vote in new:
        _check_images(store, vote)
    if not new:
        return
    path = store.folder / NAME
    check_inside(store.folder, path)
    with locked(store.folder / ".votes.lock", timeout=_SECONDS), write_errors(store.folder):
        cut_torn_line(path)
        for vote in new:
            append_line(path, vote.model_dump_json().encode())


def cells_of_vote(vote: Vote) -> tuple[Cell, Cell]:
    """The two images that a vote is on, left and right."""
    left, right = (Cell(vote.prompt, vote.seed, vote.guidance, lam) for lam in (vote.left, vote.right))
    return left, right


def _check_images(store: Store, vote: Vote) -> None:
    for cell in cells_of_vote(vote):
        if not exists(store.image(cell), "the image"):
            at = "" if vote.guidance is None else f", guidance {vote.guidance:g}"
            raise RunFolderError(
                f"{store.folder} has no image of {vote.prompt!r}, seed {vote.seed}{at}, lam = {cell.lam:g} to vote on; "
                "vote on pairs of its images"
            )
