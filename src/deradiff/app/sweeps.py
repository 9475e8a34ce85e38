"""Growing a run in the background, for all visitors alike: one sweep at a time, which anyone watches or stops."""

import logging
import threading
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.app.engine import Engine
from deradiff.app.turns import Job, Stopped
from deradiff.cluster import Cluster, Interruptible
from deradiff.errors import ConfigError, DeradiffError, ResultsError
from deradiff.report import write_report
from deradiff.results import Results
from deradiff.rewards import reward_names
from deradiff.runs.cells import Request
from deradiff.runs.results import guidance_name, guidances_of, journalled_images, load_results
from deradiff.runs.run import Run
from deradiff.runs.store import Store
from deradiff.votes import VOTES

logger = logging.getLogger("deradiff")

MAX_IMAGES = 20_000  # a request from the page; the command line takes any number
MAX_SEEDS = 64

Phase = Literal["idle", "sampling", "scoring", "done", "stopped", "failed"]


@dataclass(frozen=True)
class SweepState:
    """Where the sweep in the background stands.

    Attributes:
        phase: what it does, or how it ended.
        done: images that are done in this phase.
        total: images in all.
        what: the reward that is scored.
        problem: why it failed, a sentence.
    """

    phase: Phase = "idle"
    done: int = 0
    total: int = 0
    what: str = ""
    problem: str = ""

    @property
    def is_running(self) -> bool:
        """Whether something is being made."""
        return self.phase in ("sampling", "scoring")


class Sweeps:
    """The sweeps of one run on an engine.

    Args:
        run: which grows; where it has a cluster, that makes and scores its images.
        engine: on the run's models.
    """

    def __init__(self, run: Run, engine: Engine) -> None:
        self.run, self.engine, self.state = run, engine, SweepState()
        self._lock, self._job, self._thread = threading.Lock(), Job(), threading.Thread()

    def start(self, requests: Sequence[Request]) -> None:
        """Begin to sample what is missing of some requests; returns at once.

        Raises:
            ConfigError: a sweep is running, or too much was asked for.
        """
        if (count := sum(request.count for request in requests)) > MAX_IMAGES:
            raise ConfigError(
                f"{count:,} images are more than the {MAX_IMAGES:,} that this page takes; use deradiff sweep for them"
            )
        missing = self.run.cost(requests).missing

        def sample(job: Job) -> None:
            sampler = self.engine.sampler_for(job) if self.run.cluster is None else None
            self._run_for(job).sample_requests(requests, progress=self._advance, sampler=sampler)

        self._begin(SweepState("sampling", total=missing), sample)

    def score(self, rewards: Sequence[str]) -> None:
        """Begin to score every image that has no score yet; returns at once.

        Raises:
            ConfigError: something is running, no reward was named, or one that isn't registered: a visitor's name is
                never imported, nor asked over the network.
        """
        if not rewards:
            raise ConfigError("no reward to score by; choose one or more")
        if unknown := [name for name in rewards if name not in reward_names()]:
            raise ConfigError(f"no registered reward is called {unknown[0]!r}; choose from {', '.join(reward_names())}")
        images = len(journalled_images(self.run.store))

        def score(job: Job) -> None:
            for reward in rewards:
                job.check()
                self.state = SweepState("scoring", total=images, what=reward)
                self._run_for(job).score(reward, progress=lambda n: (job.check(), self._advance(n))[1])

        self._begin(SweepState("scoring", total=images, what=rewards[0]), score)

    def stop(self) -> None:
        """Stop what is running within a step; whole blocks are kept, and starting again goes on from there."""
        self._job.stop()

    def join(self) -> None:
        """Wait for what is running."""
        if self._thread.is_alive():
            self._thread.join()

    def _run_for(self, job: Job) -> Run:
        """The run; on a cluster, its work ends where the job is stopped."""
        run = copy(self.run)
        if isinstance(run.cluster, Cluster):
            run.cluster = Interruptible(run.cluster, job.check)
        return run

    def _begin(self, state: SweepState, work: Callable[[Job], None]) -> None:
        with self._lock:
            if self.state.is_running:
                raise ConfigError(f"the run is {self.state.phase} already; stop that first, or wait")
            self.state, self._job = state, Job()
        self._thread = threading.Thread(target=self._work, args=(work, self._job), daemon=True)
        self._thread.start()

    def _work(self, work: Callable[[Job], None], job: Job) -> None:
        try:
            work(job)
        except Stopped:
            self.state = replace(self.state, phase="stopped")
        except DeradiffError as error:
            self.state = replace(self.state, phase="failed", problem=str(error))
        except Exception:  # of a library: the page must say so, and the log why
            logger.exception("the sweep failed")
            self.state = replace(self.state, phase="failed", problem="an error nobody foresaw; the terminal shows it")
        else:
            self.state = replace(self.state, phase="done")

    def _advance(self, count: int) -> None:
        self.state = replace(self.state, done=self.state.done + count)


def tables_of(run: Run) -> dict[float | None, Results]:
    """The table of each guidance that has images, votes and scores in it; empty in a new run.

    Raises:
        RunFolderError: a damaged run.
    """
    if not Store.exists(run.folder):
        return {}
    images = journalled_images(run.store)
    scales = guidances_of(run.store, images) if images else []
    return {scale: load_results(run.store, scale, images=images) for scale in scales}


def answer_of(results: Results, objective: str, guards: Sequence[str]) -> Recommendation:
    """The recommendation for an objective, or for people's votes, under bare guards.

    Raises:
        ResultsError: it can't be answered.
    """
    return recommend(results, objective, [name for name in guards if name != objective])


def report_of(run: Run, objective: str, guards: Sequence[str]) -> tuple[Path, list[str]]:
    """Write the run's report, of each guidance a tab; returns where it is, and the recommendations in words.

    Raises:
        ResultsError: there is nothing to report on, it can't be answered or written.
    """
    tables = tables_of(run)
    if not tables:
        raise ResultsError("no images to report on yet; sample some first")
    named = {guidance_name(scale) if len(tables) > 1 else "": results for scale, results in tables.items()}
    answers = {name: answer_of(results, objective, guards) for name, results in named.items()}
    path = write_report(named, answers, run.folder / "report.html")
    where = {name: f" at {name}" if name else "" for name in answers}
    return path, [
        f"Recommended lam = {answer.lam:g}{where[name]}. {messages.lead(answer)}" for name, answer in answers.items()
    ]


def objectives_of(results: Results) -> list[str]:
    """What can be raised: rewards by name, and votes where there are some."""
    return [*results.scores, *([VOTES] if results.votes else [])]
