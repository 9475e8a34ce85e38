"""A search on disk: ``search.json``, the plan of its whole grid, and ``rounds/001``, ..., each a run of a part."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from deradiff.errors import PlanError
from deradiff.results import Results
from deradiff.search.acquisition import SampleBlock
from deradiff.sweep import Journal, Plan
from deradiff.sweep.journal import SEARCH, refuse_file, refuse_other
from deradiff.sweep.writer import hold

_KL = "path KL"


class Folder:
    """One search and its rounds; nothing is written before the first round is.

    Attributes:
        path: of the folder.
        plan: of the whole grid.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.plan = path, plan

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether a folder is a search's."""
        return (path / SEARCH).is_file()

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """The search in a folder.

        Raises:
            PlanError: its plan is damaged.
        """
        file = path / SEARCH
        try:
            return cls(path, Plan.of(**json.loads(file.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise PlanError(f"{file} is damaged ({error}); restore it, or search into another --out") from error

    @contextmanager
    def writing(self) -> Iterator["Folder"]:
        """Hold the search for this process, and note its plan.

        Raises:
            PlanError: another process holds it, it has another plan, or several guidances; it is a sweep's, or
                can't be written.
        """
        if len(self.plan.guidances) > 1:
            raise PlanError(f"a search is at one guidance, got {list(self.plan.guidances)}; search each by itself")
        refuse_file(self.path)
        if (self.path / "plan.json").exists():
            raise PlanError(f"{self.path} holds a sweep, not a search; give another --out")
        with hold(self.path, "search") as writer:
            if self._begun():  # a plan that couldn't be sampled at all may be put right
                refuse_other(self.path, Folder.open(self.path).plan, self.plan)
            else:
                writer.save(self.path / SEARCH, self.plan.model_dump_json(indent=1).encode())
            yield self

    def round(self, number: int, block: SampleBlock) -> Journal:
        """The run of a round, counted from 1, begun or not.

        Raises:
            PlanError: the folder holds another one of that number.
        """
        part = {
            "prompts": [self.plan.prompts[place] for place in block.prompts],
            "seeds": [self.plan.seeds[place] for place in block.seeds],
            "lams": [self.plan.lams[place] for place in block.lams],
        }
        return Journal(self.path / "rounds" / f"{number:03}", Plan.of(**self.plan.model_dump() | part))

    def rounds(self) -> list[Journal]:
        """The runs of the rounds that were begun, in their order.

        Raises:
            PlanError: one has gone.
        """
        for number, path in enumerate(self._begun(), start=1):
            if path.name != f"{number:03}":
                raise PlanError(f"{self.path} lacks rounds/{number:03}; restore it, or search into another --out")
        return [Journal.open(path) for path in self._begun()]

    def block(self, journal: Journal) -> SampleBlock:
        """What a round samples.

        Raises:
            PlanError: it is none of this search's.
        """
        plan, whole = journal.plan, self.plan
        try:
            prompts, seeds = whole.prompts.index(plan.prompts[0]), whole.seeds.index(plan.seeds[0])
            lams = tuple(map(whole.lams.index, plan.lams))
        except ValueError as error:
            raise PlanError(f"{journal.folder} is no round of the search in {self.path}; take it away") from error
        return SampleBlock(range(prompts, prompts + len(plan.prompts)), range(seeds, seeds + len(plan.seeds)), lams)

    def known(self) -> Results:
        """The scores of the finished rounds on the whole grid, nan where nothing was sampled.

        Raises:
            PlanError: there is none yet, or images of one have gone.
        """
        finished = [journal for journal in self.rounds() if journal.index().done.all()]
        if not finished:
            raise PlanError(f"{self.path} has no finished round yet; run the same deradiff search again")
        parts = [(np.ix_(*self.block(journal)), journal.results()) for journal in finished]
        first, shape = parts[0][1], (len(self.plan.prompts), len(self.plan.seeds), len(self.plan.lams))
        names = [name for name in first.scores if all(name in part.scores for _, part in parts)]
        missing = {name for _, part in parts for name in (*part.scores, *part.unscored)} - set(names)
        tables = {name: np.full(shape, np.nan) for name in (*names, _KL)}
        images = np.full(shape, "", dtype=object)
        for index, part in parts:
            images[index] = part.images
            for name in names:
                tables[name][index] = part.scores[name]
            tables[_KL][index] = np.nan if part.path_kl is None else part.path_kl
        path_kl = tables.pop(_KL)
        recorded = all(part.path_kl is not None for _, part in parts)
        return Results(
            prompts=self.plan.prompts,
            seeds=self.plan.seeds,
            lams=self.plan.lams,
            scores=tables,
            images=images,
            unscored={
                name: int(sum(np.prod(part.shape) for _, part in parts if name not in part.scores)) for name in missing
            },
            path_kl=path_kl if recorded else None,
            rewards=first.rewards,
            anchor_beta=first.anchor_beta,
            details=first.details,
        )

    def _begun(self) -> list[Path]:
        return sorted(path.parent for path in self.path.glob("rounds/*/plan.json"))
