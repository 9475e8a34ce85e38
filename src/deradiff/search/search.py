"""The search: sample, score, fill in, choose, and again where it decides most.

Each round is a run folder of its own, ``rounds/001``, ...: a plan of some prompts, seeds and lams, its journal, its
scores. What comes next follows from what is there, so the same command goes on where a stopped one was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deradiff.errors import PlanError
from deradiff.recommend import Recommendation, recommend
from deradiff.results import Results
from deradiff.search.fill import filled
from deradiff.search.following import following, stands
from deradiff.search.observed import Observed, Rectangle, observed
from deradiff.search.settings import FIRST_PROMPTS, Settings

Sample = Callable[[int, Rectangle], Results]  # the number of a round, from 1, and what to sample


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer of a search.

    Attributes:
        choice: chosen on the whole grid, of which most was filled in.
        observed: what was sampled.
        images: how many.
        rounds: how many.
        stopped: why it ended.
    """

    choice: Recommendation
    observed: Observed
    images: int
    rounds: int
    stopped: str


def search(settings: Settings, prompts: int, seeds: int, sample: Sample) -> Found:
    """Find lam.

    Args:
        settings: the question.
        prompts: how many there are, 2 or more.
        seeds: how many each may have.
        sample: samples and scores one rectangle of lams on ``settings.grid``.

    Raises:
        PlanError: a single prompt, or fewer images allowed than a first round takes.
        ResultsError: what was sampled can't answer the question.
    """
    if prompts < 2:
        raise PlanError("a search needs 2 prompts or more: intervals need the spread between prompts")
    grid = settings.grid
    start = Rectangle(range(min(prompts, FIRST_PROMPTS)), range(1), (0, len(grid) // 2, len(grid) - 1))
    if settings.most is not None and start.images > settings.most:
        raise PlanError(f"the first round takes {start.images} images, and {settings.most} are allowed; allow more")
    rounds: list[tuple[Rectangle, Results]] = []
    todo = [start]
    while True:
        for rectangle in todo:
            rounds.append((rectangle, sample(len(rounds) + 1, rectangle)))
        seen, first = observed((prompts, seeds, len(grid)), rounds), rounds[0][1]
        choice = recommend(
            filled(seen, grid, first.anchor_beta, first.better),
            objective=settings.objective,
            guard=settings.guard,
            kl_budget=settings.kl_budget,
        )
        todo = following(seen, grid.index(choice.lam))
        if stopped := _stopped(settings, choice, seen, todo):
            return Found(
                choice=choice, observed=seen, images=int(seen.known.sum()), rounds=len(rounds), stopped=stopped
            )


def _stopped(settings: Settings, choice: Recommendation, seen: Observed, todo: Sequence[Rectangle]) -> str:
    """Why to stop, or nothing."""
    low, high = choice.interval
    if high - low <= settings.width and stands(seen, choice.place):
        return f"the interval of lam is no wider than {settings.width:g}"
    if not todo:
        return "all prompts and seeds are used around the answer"
    if settings.most is not None and seen.known.sum() + sum(own.images for own in todo) > settings.most:
        return f"the next round would pass the {settings.most:,} images allowed"
    return ""
