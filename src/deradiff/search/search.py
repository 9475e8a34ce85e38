"""The search: sample, score, fill in, choose, and again where it decides most.

Each round is a run folder of its own: a plan of some prompts, seeds and lams, its journal, its scores. What comes next
follows from what is there, so the same command goes on where a stopped one was, and another question begins with what
the last one sampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deradiff.errors import PlanError
from deradiff.recommend import Recommendation
from deradiff.results import Results
from deradiff.search.answer import Answer, answered
from deradiff.search.following import following, stands
from deradiff.search.observed import Observed, Rectangle, observed
from deradiff.search.settings import FIRST_PROMPTS, Settings

Sample = Callable[[int, Rectangle], Results]  # the number of a round, from 1, and what to sample


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer of a search.

    Attributes:
        choice: chosen on the whole grid, of which most was filled in.
        interval: lams that sampling the whole grid would choose between (`deradiff.search.answer.Answer`).
        observed: what was sampled.
        images: how many.
        rounds: how many.
        stopped: why it ended.
    """

    choice: Recommendation
    interval: tuple[float, float]
    observed: Observed
    images: int
    rounds: int
    stopped: str


def search(settings: Settings, prompts: int, seeds: int, sample: Sample, before: Sequence[Rectangle] = ()) -> Found:
    """Find lam.

    Args:
        settings: the question.
        prompts: how many there are, 2 or more.
        seeds: how many each may have.
        sample: samples and scores one rectangle of lams on ``settings.grid``.
        before: the rounds that were sampled already, of this question or of another, which come first.

    Raises:
        PlanError: a single prompt, or fewer images allowed than a first round takes.
        ResultsError: what was sampled can't answer the question.
    """
    grid, start = settings.grid, first(settings, prompts)
    rounds: list[tuple[Rectangle, Results]] = []
    todo = list(before) or [start]
    while True:
        for rectangle in todo:
            rounds.append((rectangle, sample(len(rounds) + 1, rectangle)))
        seen = observed((prompts, seeds, len(grid)), rounds)
        answer = answered(seen, settings, rounds[0][1])
        more = following(seen, answer.choice.place, answer.spread)
        todo = [] if more is None else [more]
        if stopped := _stopped(settings, answer, seen, more):
            images = int(seen.known.sum())
            return Found(
                choice=answer.choice,
                interval=answer.interval,
                observed=seen,
                images=images,
                rounds=len(rounds),
                stopped=stopped,
            )


def first(settings: Settings, prompts: int) -> Rectangle:
    """What a search begins with.

    Raises:
        PlanError: a single prompt, or fewer images allowed than that takes.
    """
    if prompts < 2:
        raise PlanError("a search needs 2 prompts or more: intervals need the spread between prompts")
    last = len(settings.grid) - 1
    start = Rectangle(range(min(prompts, FIRST_PROMPTS)), range(1), (0, last // 2, last))
    if settings.images is not None and start.images > settings.images:
        raise PlanError(f"the first round takes {start.images} images, and {settings.images} are allowed; allow more")
    return start


def _stopped(settings: Settings, answer: Answer, seen: Observed, more: Rectangle | None) -> str:
    """Why to stop, or nothing."""
    low, high = answer.interval
    wide = f"the interval is {high - low:.3g} wide"
    noise_known = seen.used[1] > 1 or seen.known.shape[1] == 1
    if high - low <= settings.interval and noise_known and stands(seen, answer.choice.place):
        return f"the interval of lam is no wider than {settings.interval:g}"
    if more is None:
        return f"all prompts and seeds are used around the answer; {wide}"
    if settings.images is not None and seen.known.sum() + more.images > settings.images:
        return f"the next round would pass the {settings.images:,} images allowed; {wide}"
    return ""
