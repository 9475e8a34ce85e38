"""What a search scores, and sampling and scoring its rounds."""

from collections.abc import Callable, Sequence
from typing import Any

from deradiff.errors import PlanError
from deradiff.recommend import Ask
from deradiff.results import Results
from deradiff.rewards import load_reward, reward_name
from deradiff.rewards.relational import Relational
from deradiff.search.folder import Folder
from deradiff.search.observed import Rectangle
from deradiff.sweep.run import run
from deradiff.sweep.score import score


def to_score(question: Ask, more: Sequence[str] = ()) -> list[str]:
    """What to score: more rewards, as ``load_reward`` takes them, and those asked about that aren't among them.

    Raises:
        PlanError: one that compares the images of a whole run.
        RewardError: an unknown one.
    """
    names = [*more, *(name for name in question.rewards if name not in map(reward_name, more))]
    refuse_relational(names)
    return names


def refuse_relational(rewards: Sequence[str]) -> None:
    """Raise PlanError for a reward that compares the images of a whole run, RewardError for an unknown one."""
    for name in rewards:
        if isinstance(load_reward(name), Relational):
            raise PlanError(
                f"{name} compares an image with all of its run, which a search never has; use deradiff sweep"
            )


class Rounds:
    """Samples and scores rectangles, each into a run of its own.

    Args:
        folder: of the search.
        pipe: the reference pipeline, loaded.
        anchor: folder or hub id of the aligned model.
        rewards: to score, as ``load_reward`` takes them.
        device: where scorers run.
        told: called with a line about each round before it is sampled.
    """

    def __init__(
        self, folder: Folder, pipe: Any, anchor: str, rewards: Sequence[str], device: str, told: Callable[[str], None]
    ) -> None:
        self.folder, self.rewards = folder, rewards
        self._pipe, self._anchor, self._device, self._told = pipe, anchor, device, told

    def __call__(self, number: int, own: Rectangle) -> Results:
        """Sample a round, or what is missing of it.

        Raises:
            PlanError: the folder holds another round of that number, or can't be written.
            RewardError: as ``score``.
        """
        journal = self.folder.round(number, own)
        plan = journal.plan
        lams = ", ".join(f"{lam:g}" for lam in plan.lams)
        pairs = f"{len(plan.prompts)} prompts x {len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}"
        self._told(f"round {number}: lam {lams} for {pairs}, {plan.count} images")
        run(journal, self._pipe, self._anchor)
        for reward in self.rewards:
            score(journal, reward, device=self._device)
        return journal.results()
