"""Sampling one batch of a plan: every lam of some prompts and seeds in one call of the pipeline."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from deradiff.paths.paths import columns
from deradiff.realignment import Handle
from deradiff.reuse import Adaptive, Budget, Exact, Policy, Reuse
from deradiff.sampling import final_latents, noise_seed
from deradiff.sweep.batches import Batch, Cell
from deradiff.sweep.check import Check, Checks
from deradiff.sweep.models import call
from deradiff.sweep.plan import Plan

_REFRESH = 3

Columns = dict[str, list[float | None]]


@dataclass(frozen=True)
class Sampled:
    """A batch's images, in the order of its cells.

    Attributes:
        images: one a cell.
        path_kl: nats, one a cell; None where it isn't known.
        paths: what else is known of their paths (`deradiff.paths.Paths`), by name, one value a cell.
        info: what sampling the batch again needs and what its report tells; JSON-able.
    """

    images: list[Image.Image]
    path_kl: list[float | None]
    paths: dict[str, list[float | None]]
    info: dict[str, Any]


class Sampler:
    """Samples the batches of a plan on a realigned pipeline."""

    def __init__(self, pipe: Any, handle: Handle, plan: Plan) -> None:
        self.pipe, self.handle, self.plan = pipe, handle, plan
        self.budget = Budget(limit=plan.batch_size)
        self.checks = Checks(plan)

    def sample(self, batch: Batch, info: dict[str, Any] | None = None) -> Sampled:
        """Sample a batch; the ``info`` of an earlier time repeats it exactly.

        Raises:
            PlanError: the pipeline takes no such setting.
            RealignError: its calls can't be saved in the plan's mode.
        """
        images, paths, made = self._sample(batch, info, {})
        return Sampled(images, paths.pop("path_kl", [None] * len(images)), paths, made)

    def latents(self, batch: Batch, info: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """A batch's final latents (cells, ...), in the order of its cells, and its info; nothing is decoded.

        Raises:
            PlanError: as :meth:`sample`.
            RealignError: as :meth:`sample`.
        """
        images, _, made = self._sample(batch, info, {"output_type": "latent"})
        return torch.stack(images), made

    def learn(self, info: dict[str, Any]) -> None:
        """Be told the ``info`` of each batch before the next one, in order: spot checks set the next tolerance."""
        self.checks.learn(info)

    def _sample(
        self, batch: Batch, info: dict[str, Any] | None, settings: dict[str, Any]
    ) -> tuple[list[Any], Columns, dict[str, Any]]:
        plan, cells = self.plan, list(batch.cells(self.plan))
        tolerance = info["tolerance"] if info else self.checks.tolerance
        before = self.budget.calls
        if plan.mode == "weights":
            images = self._interpolated(batch, cells, settings)
            return images, {}, self._info(cells, len(cells) * plan.steps, None, [])
        with ExitStack() as stack:
            lams = len(plan.lams) if plan.particles == 1 else 1  # cells of a lam apart, each of particles of its own
            stack.enter_context(self.handle.sweeping(lams, self._policy(tolerance), self.budget))
            if plan.diagnostics:
                stack.enter_context(self.handle.recording())
            final = stack.enter_context(final_latents(self.pipe))
            images, paths = self._corrected(batch, cells, settings)
        asked = info["checks"] if info else self.checks.wanted(batch)
        checks = [self._check(cells, place, final()) for place in _places(cells, asked)]
        return images, paths, self._info(cells, self.budget.calls - before, tolerance, checks)

    def _corrected(self, batch: Batch, cells: list[Cell], settings: dict[str, Any]) -> tuple[list[Any], Columns]:
        """Images and what their paths tell.

        Particles correct nothing at lam = 0 and 1, and beyond they do harm: there is one.
        """
        plain = {cell for cell in cells if self.plan.particles == 1 or not 0 < self.plan.lams[cell.lam] < 1}
        images: dict[Cell, Any] = {}
        paths: dict[str, dict[Cell, float]] = {}
        for particles, own in ((1, plain), (self.plan.particles, set(cells) - plain)):
            if own:
                self.handle.particles = particles
                ordered = [cell for cell in cells if cell in own]
                images |= zip(ordered, self._call(batch.prompts, ordered, settings), strict=True)
                found = columns(self.handle.paths) if self.handle.paths and self.plan.diagnostics else {}
                for name, values in found.items():
                    paths.setdefault(name, {}).update(zip(ordered, values, strict=True))
        table: Columns = {name: [values.get(cell) for cell in cells] for name, values in paths.items()}
        return [images[cell] for cell in cells], table

    def _info(self, cells: list[Cell], calls: int, tolerance: float | None, checks: list[Check]) -> dict[str, Any]:
        steps = len(self.pipe.scheduler.timesteps)  # more than the plan's where each takes several calls (Heun)
        return {
            "images": len(cells),
            "calls": calls,
            "calls_published": 2 * steps * len(cells),
            "tolerance": tolerance,
            "checks": checks,
        }

    def _policy(self, tolerance: float | None) -> Policy:
        if self.plan.mode == "reuse":
            return Reuse(self.plan.refresh or _REFRESH)
        return Exact() if tolerance is None else Adaptive(tolerance)

    def _call(self, prompts: range, cells: list[Cell], settings: dict[str, Any]) -> list[Any]:
        """The pipeline on cells of some prompts, as many of each, in the prompts' order."""
        plan = self.plan
        seeds = [noise_seed(plan.prompts[cell.prompt], plan.seeds[cell.seed]) for cell in cells]
        lams = [plan.lams[cell.lam] for cell in cells]
        self.handle.lam = lams if len(set(lams)) > 1 else lams[0]
        return call(
            self.pipe,
            plan,
            [plan.prompts[prompt] for prompt in prompts],
            [torch.Generator().manual_seed(seed) for seed in seeds],
            len(cells) // len(prompts),
            plan.guidances[cells[0].guidance],
            **settings,
        )

    def _interpolated(self, batch: Batch, cells: list[Cell], settings: dict[str, Any]) -> list[Any]:
        """Lam by lam, as the weights of the one network depend on it."""
        images: dict[Cell, Any] = {}
        for lam in range(len(self.plan.lams)):
            own = [cell for cell in cells if cell.lam == lam]
            made = self._call(batch.prompts, own, settings)
            images |= zip(own, made, strict=True)
        return [images[cell] for cell in cells]

    def _check(self, cells: list[Cell], place: int, final: Tensor) -> Check:
        """One cell once more, exactly."""
        cell, before = cells[place], self.budget.calls
        with self.handle.sweeping(1, Exact(), self.budget), final_latents(self.pipe) as exact:
            self._call(range(cell.prompt, cell.prompt + 1), [cell], {"output_type": "latent"})
        truth = exact()[0].float()
        error = (final[place].float() - truth).norm() / truth.norm()
        return {"cell": list(cell), "error": error.item(), "calls": self.budget.calls - before}


def _places(cells: list[Cell], checks: list[Check]) -> list[int]:
    return [cells.index(Cell(*check["cell"])) for check in checks]
