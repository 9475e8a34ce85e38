"""Blind pairs of a run's images, shown to raters by tickets that say nothing; each ticket counts once."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from deradiff.analysis import vote_messages
from deradiff.analysis.agreement import rater_agreement
from deradiff.analysis.messages import lead
from deradiff.analysis.vote_design import Pair, next_pair
from deradiff.analysis.votes import VoteFit, fit_votes
from deradiff.app.sweeps import answer_of, tables_of
from deradiff.errors import ConfigError, ResultsError, RunFolderError
from deradiff.reading import decode_image, read_whole
from deradiff.results import Results
from deradiff.runs.cells import Cell
from deradiff.runs.run import Run
from deradiff.votes import VOTES, Outcome, Vote
from deradiff.writing import encode_png

_REFIT = 5  # votes between fits
_TICKETS = 1000  # open at once


@dataclass(frozen=True)
class Ballot:
    """A pair to judge.

    Attributes:
        ticket: names it, and tells nothing of the images.
        prompt: of both.
        left: content of the image file on the left.
        right: likewise.
    """

    ticket: str
    prompt: str
    left: bytes
    right: bytes


@dataclass(frozen=True)
class _Ticket:
    rater: str
    guidance: float | None
    pair: Pair


class Ballots:
    """The pairs on the raters' screens, and their votes.

    Args:
        run: whose images are compared.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._lock = run, threading.Lock()
        self._open: OrderedDict[str, _Ticket] = OrderedDict()
        self._fits: dict[float | None, VoteFit] = {}

    def next(self, rater: str, guidance: float | None) -> Ballot | None:
        """What to show a rater: the pair that is open, so that a reload changes nothing, or the next; None at the end.

        Raises:
            ConfigError: no rater.
            ResultsError: nothing to compare.
            RunFolderError: an image can't be read.
        """
        rater = _named(rater)
        with self._lock:
            ticket = self._ticket_of(rater, guidance) or self._draw(rater, guidance)
            return None if ticket is None else self._ballot(ticket)

    def vote(self, ticket: str, outcome: Outcome) -> bool:
        """Note the judgement of a pair, on disk before this returns; whether it is new.

        A ticket that was voted on already, by a double click or from another window, changes nothing.

        Raises:
            RunFolderError: it can't be written; the pair stays open.
        """
        with self._lock:
            entry = self._open.get(ticket)
            if entry is None:
                return False
            pair = entry.pair
            self._run.add_vote(
                Vote(
                    prompt=pair.prompt,
                    seed=pair.seed,
                    guidance=entry.guidance,
                    left=pair.left,
                    right=pair.right,
                    outcome=outcome,
                    rater=entry.rater,
                )
            )
            del self._open[ticket]
            return True

    def _ticket_of(self, rater: str, guidance: float | None) -> str | None:
        for name, entry in self._open.items():
            if (entry.rater, entry.guidance) == (rater, guidance):
                return name
        return None

    def _draw(self, rater: str, guidance: float | None) -> str | None:
        results = self._results(guidance)
        pending = [entry.pair for entry in self._open.values() if entry.guidance == guidance]
        fit = self._fit(results, guidance)
        pair = next_pair(results, results.votes, rater, pending=pending, fit=fit, seed=secrets.randbits(32))
        if pair is None:
            return None
        name = secrets.token_urlsafe(12)
        self._open[name] = _Ticket(rater, guidance, pair)
        if len(self._open) > _TICKETS:
            self._open.popitem(last=False)
        return name

    def _results(self, guidance: float | None) -> Results:
        tables = tables_of(self._run)
        if guidance not in tables:
            raise ResultsError("the run has no images to compare yet; sample some on the tab Sweep")
        return tables[guidance]

    def _fit(self, results: Results, guidance: float | None) -> VoteFit:
        fit = self._fits.get(guidance)
        if fit is None or fit.lams != tuple(results.lams) or len(results.votes) >= fit.votes + _REFIT:
            fit = self._fits[guidance] = fit_votes(results.votes, results.lams)
        return fit

    def _ballot(self, name: str) -> Ballot:
        entry = self._open[name]
        pair = entry.pair
        left, right = (
            _pixels(self._run.store.image(Cell(pair.prompt, pair.seed, entry.guidance, lam)), self._run.folder)
            for lam in (pair.left, pair.right)
        )
        return Ballot(name, pair.prompt, left, right)

    def standing(self, guidance: float | None, guards: Sequence[str] = ()) -> list[str]:
        """What the votes say so far, a sentence each: the recommended lam, why, its interval, what is open, agreement.

        Raises:
            ResultsError: votes on lams that have no images any more.
        """
        results = self._results(guidance)
        if not results.votes:
            return ["No votes yet."]
        if 0 not in results.lams:
            return ["The reference, lam = 0, is not among the lams: sample it too, and the votes have an answer."]
        answer = answer_of(results, VOTES, guards)
        fit = answer.votes
        if fit is None:
            raise ResultsError("the votes have no fit")
        sentences = [
            f"Recommended lam = {answer.lam:g}. {lead(answer)}",
            *vote_messages.vote_reasons(fit, fit.lams.index(answer.lam)),
            vote_messages.vote_interval(fit),
            *filter(None, [vote_messages.votes_to_settle(fit)]),
            *vote_messages.vote_warnings(fit),
        ]
        return [*sentences, *vote_messages.agreement_sentences(rater_agreement(results.votes))]

    def count(self, rater: str, guidance: float | None) -> int:
        """How many votes a rater has given."""
        return sum((vote.rater, vote.guidance) == (_named(rater), guidance) for vote in self._run.votes())


def _named(rater: str | None) -> str:
    name = (rater or "").strip()
    if not name:
        raise ConfigError("who judges? Give a name, so that raters can be told apart")
    if len(name) > 100:
        raise ConfigError(f"the name has {len(name):,} characters; expected at most 100")
    return name


@lru_cache(maxsize=64)
def _pixels(path: Path, folder: Path) -> bytes:
    """An image as a file that holds its pixels and nothing else, such as metadata that names its lam."""
    image = decode_image(read_whole(path, "the image", inside=folder), f"the image {path}", RunFolderError)
    return encode_png(image.convert("RGB"))
