"""How a plan's images are dealt out: cells, and the rectangular batches in which they are sampled."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deradiff.sweep.plan import Plan


class Cell(NamedTuple):
    """One image: its indices into the plan's prompts, seeds, guidances and lams."""

    prompt: int
    seed: int
    guidance: int
    lam: int


@dataclass(frozen=True)
class Batch:
    """Some prompts x some seeds at one guidance and at every lam: what is sampled, saved and journalled together.

    Attributes:
        index: place among the plan's batches.
        prompts: indices into the plan's prompts.
        seeds: indices into the plan's seeds.
        guidance: index into the plan's guidances.
    """

    index: int
    prompts: range
    seeds: range
    guidance: int

    def cells(self, plan: "Plan") -> Iterator[Cell]:
        """The images by prompt, then seed, then lam."""
        for prompt in self.prompts:
            for seed in self.seeds:
                for lam in range(len(plan.lams)):
                    yield Cell(prompt, seed, self.guidance, lam)

    def count(self, plan: "Plan") -> int:
        """How many images."""
        return len(self.prompts) * len(self.seeds) * len(plan.lams)


def batch_count(plan: "Plan") -> int:
    """How many batches a plan has."""
    prompts, seeds = _block(plan)
    return math.ceil(len(plan.prompts) / prompts) * math.ceil(len(plan.seeds) / seeds) * len(plan.guidances)


def batch_at(plan: "Plan", index: int) -> Batch:
    """The batch of an index: guidances turn fastest, then seeds, then prompts, so that a prompt's are neighbours."""
    if not 0 <= index < batch_count(plan):
        raise IndexError(f"batch {index} of {batch_count(plan)}")
    prompts, seeds = _block(plan)
    place, guidance = divmod(index, len(plan.guidances))
    row, column = divmod(place, math.ceil(len(plan.seeds) / seeds))
    return Batch(
        index,
        range(row * prompts, min((row + 1) * prompts, len(plan.prompts))),
        range(column * seeds, min((column + 1) * seeds, len(plan.seeds))),
        guidance,
    )


def _block(plan: "Plan") -> tuple[int, int]:
    """Prompts and seeds of a batch.

    Every lam goes with its (prompt, seed), so a batch has several pairs only where their lams leave room; in the
    adaptive mode few rows of a step go through the networks, so it takes more pairs.
    """
    rows = len(plan.lams) * plan.particles
    pairs = max(1, plan.batch_size // 2) if plan.mode == "adaptive" else math.ceil(plan.batch_size / rows)
    seeds = min(pairs, len(plan.seeds))
    return max(1, pairs // len(plan.seeds)), seeds
