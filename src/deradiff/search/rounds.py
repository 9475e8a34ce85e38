"""What a search scores, and sampling and scoring its rounds."""

from collections.abc import Callable, Sequence
from typing import Any

from deradiff.analysis.criteria import Criteria
from deradiff.errors import PlanError
from deradiff.results import Results
from deradiff.rewards import load_reward, reward_name
from deradiff.rewards.relational import Relational
from deradiff.search.acquisition import SampleBlock
from deradiff.search.folder import Folder
from deradiff.sweep.run import run
from deradiff.sweep.score import score


def to_score(question: Criteria, more: Sequence[str] = ()) -> list[str]:
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
        report: called with a line about each round before it is sampled.
    """

    def __init__(
        self, folder: Folder, pipe: Any, anchor: str, rewards: Sequence[str], device: str, report: Callable[[str], None]
    ) -> None:
        self.folder, self.rewards = folder, rewards
        self._pipe, self._anchor, self._device, self._report = pipe, anchor, device, report

    def __call__(self, block: SampleBlock) -> Results:
        """Sample a round of its own, or what is missing of it; returns the scores of all rounds.

        Raises:
            PlanError: the folder holds another round of that number, or can't be written.
            RewardError: as ``score``.
        """
        begun = self.folder.rounds()
        journal = next((own for own in begun if self.folder.block(own) == block), None)
        number = len(begun) + 1 if journal is None else begun.index(journal) + 1
        journal = self.folder.round(number, block) if journal is None else journal
        plan = journal.plan
        lams = ", ".join(f"{lam:g}" for lam in plan.lams)
        pairs = f"{len(plan.prompts)} prompts x {len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}"
        self._report(f"round {number}: lam {lams} for {pairs}, {plan.count} images")
        run(journal, self._pipe, self._anchor)
        for reward in self.rewards:
            score(journal, reward, device=self._device)
        return self.folder.known()

    def resume(self) -> Results | None:
        """Finish and score all rounds that were begun; None where there is none."""
        known = None
        for journal in self.folder.rounds():
            known = self(self.folder.block(journal))
        return known
