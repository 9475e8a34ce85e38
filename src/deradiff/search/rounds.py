"""A search's rounds as runs on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deradiff.results import Results
from deradiff.search.observed import Rectangle
from deradiff.sweep import Journal, Plan
from deradiff.sweep.run import run
from deradiff.sweep.score import score


class Rounds:
    """Samples and scores rectangles, each into a run folder of its own.

    Args:
        folder: of the search; rounds go to ``rounds/001``, ...
        plan: gives prompts, seeds, and all else but the lams.
        grid: of lams.
        pipe: the reference pipeline, loaded.
        anchor: folder or hub id of the aligned model.
        rewards: to score, as ``load_reward`` takes them.
        device: where scorers run.
        told: called with a line about each round before it is sampled.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        grid: Sequence[float],
        pipe: Any,
        anchor: str,
        rewards: Sequence[str],
        device: str,
        told: Callable[[str], None],
    ) -> None:
        self.folder, self.plan, self.grid, self.rewards = folder, plan, grid, rewards
        self._pipe, self._anchor, self._device, self._told = pipe, anchor, device, told

    def __call__(self, number: int, own: Rectangle) -> Results:
        """Sample a round, or what is missing of it.

        Raises:
            PlanError: the folder holds a round of another search, or can't be written.
            RewardError: as ``score``.
        """
        plan = self.planned(own)
        lams = ", ".join(f"{lam:g}" for lam in plan.lams)
        pairs = f"{len(plan.prompts)} prompts x {len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}"
        self._told(f"round {number}: lam {lams} for {pairs}, {plan.count} images")
        journal = Journal(self.folder / "rounds" / f"{number:03}", plan)
        run(journal, self._pipe, self._anchor)
        for reward in self.rewards:
            score(journal, reward, device=self._device)
        return journal.results()

    def planned(self, own: Rectangle) -> Plan:
        """The plan of a round."""
        return Plan.of(
            **self.plan.model_dump()
            | {
                "prompts": [self.plan.prompts[place] for place in own.prompts],
                "seeds": [self.plan.seeds[place] for place in own.seeds],
                "lams": [self.grid[place] for place in own.lams],
            }
        )
