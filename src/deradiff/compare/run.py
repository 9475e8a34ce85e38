"""Running a comparison: a sweep for each arm, in a folder of its own below one output folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deradiff.compare.aligned import refuse_other_units
from deradiff.compare.settings import Comparison
from deradiff.errors import PlanError
from deradiff.rewards import load_reward
from deradiff.sweep import Journal
from deradiff.sweep.journal import refuse_other
from deradiff.sweep.models import check_scheduler
from deradiff.sweep.relate import check_fit
from deradiff.sweep.run import Progress, run
from deradiff.sweep.score import score
from deradiff.sweep.writer import hold


class Runs:
    """The runs of a comparison, below one folder; nothing is written before :meth:`make`.

    Attributes:
        folder: holds ``compare.json`` and a run folder for each arm.
        comparison: what is compared.
        journals: run folder's name -> its journal.

    Raises:
        PlanError: the folder holds another comparison, or can't be read.
    """

    def __init__(self, folder: Path, comparison: Comparison) -> None:
        self.folder, self.comparison = folder, comparison
        self._settings = folder / "compare.json"
        self._refuse_other()
        self.journals = {name: Journal(folder / name, plan) for name, plan in comparison.plans().items()}

    def make(
        self,
        pipe: Any,
        rewards: Sequence[str],
        locate: Callable[[str], str] = str,
        progress: Progress = lambda count: None,
    ) -> None:
        """Sample and score what is missing; a killed process loses the batch in flight.

        Args:
            pipe: the reference pipeline, loaded; left as it was.
            rewards: names or ``module:function``; more may be given later.
            locate: from a model's name to its folder or hub id.
            progress: told how many more images are sampled, those found on disk first.

        Raises:
            PlanError: as the sweep's ``run`` and ``score``, or an optimum is asked for and beta isn't in its units.
            RewardError: as ``score``.
        """
        for reward in rewards:
            found = load_reward(reward)
            for journal in self.journals.values():
                check_fit(found, journal.plan)
        for scheduler in self.comparison.schedulers:
            check_scheduler(pipe, scheduler)
        if self.comparison.optimum:
            refuse_other_units(self.comparison.anchors[0], pipe.scheduler)
        with hold(self.folder, "compare") as writer:
            self._refuse_other()  # once more, now that no other process can write it
            if not self._settings.exists():
                writer.save(self._settings, self.comparison.model_dump_json(indent=1).encode())
            for journal in self.journals.values():
                run(journal, pipe, locate(journal.plan.anchor), progress)
                for reward in rewards:
                    score(journal, reward)

    def _refuse_other(self) -> None:
        if self._settings.exists():
            written = _read(self._settings)
            for what in ("anchors", "scratch"):
                before, now = (", ".join(sorted(map(str, getattr(own, what)))) for own in (written, self.comparison))
                if before != now:
                    told = f"{what}: {before}; now {now}"
                    raise PlanError(f"{self.folder} holds a comparison of other models ({told}); give another --out")
            refuse_other(self.folder, written.plan, self.comparison.plan)
            refuse_other(self.folder, written, self.comparison)


def _read(path: Path) -> Comparison:
    try:
        return Comparison.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise PlanError(f"{path} is damaged ({told}); restore it, or give another --out") from error
