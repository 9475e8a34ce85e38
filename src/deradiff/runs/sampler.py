"""Sampling a block of cells in one call of the pipeline.

An image must not depend on what is sampled beside it, or a run that grew in pieces would hold other images than one
that was asked for at once. Kernels round differently for other batch sizes, but alike wherever a row stands, so a
network always sees ``batch_size`` rows: a block that is smaller is filled up with copies, which are thrown away.
"""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deradiff.acceleration import Adaptive, Budget, Exact, Policy, Reuse
from deradiff.acceleration.cells import free_memory, is_out_of_memory
from deradiff.errors import RealignError
from deradiff.realignment import Handle, sweeping
from deradiff.runs.cells import Cell, Request, Shard, blocks
from deradiff.runs.missing import cells_of_shard, shard_blocks
from deradiff.runs.models import call_flagged
from deradiff.runs.provenance import note_provenance, provenance
from deradiff.runs.recipe import REFRESH, Recipe
from deradiff.runs.records import STATISTICS, CellsRecord, SamplingInfo, SpotCheck
from deradiff.runs.spot_checks import SpotChecks
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer
from deradiff.sampling import final_latents, noise_seed
from deradiff.trajectory.statistics import columns
from deradiff.writing import encode_png

_THREADS = 4  # compressing and hashing release the GIL; more would take cores from the networks


@dataclass(frozen=True)
class Sampled:
    """The images of a block, in the order of its cells.

    Attributes:
        images: one a cell.
        statistics: of their trajectories, by name, one value a cell.
        info: how they were sampled.
        blackened: indices of images that the pipeline's safety checker made black.
    """

    images: list[Any]
    statistics: dict[str, list[float | None]]
    info: SamplingInfo
    blackened: list[int]


class Sampler:
    """Samples blocks of cells of one recipe on a realigned pipeline.

    Args:
        pipe: realigned.
        handle: of the realignment.
        recipe: what all cells share.
        call_kwargs: more of the pipeline's arguments, the same for all cells.
    """

    def __init__(self, pipe: Any, handle: Handle, recipe: Recipe, call_kwargs: dict[str, Any] | None = None) -> None:
        self.pipe, self.handle, self.recipe, self.call_kwargs = pipe, handle, recipe, dict(call_kwargs or {})
        self.budget = Budget(limit=recipe.batch_size, fill=True)
        self.checks = SpotChecks(recipe)
        self.largest: int | None = None  # cells of a block, once memory ran out

    @property
    def status(self) -> str:
        """Nothing: there is one pipeline."""
        return ""

    def with_steps(self, steps: int) -> "Sampler":
        """The same with another number of steps, and nothing learned."""
        return Sampler(self.pipe, self.handle, self.recipe.model_copy(update={"steps": steps}), self.call_kwargs)

    def update(self, records: Iterable[CellsRecord]) -> None:
        """Let the spot checks of records, in their order, set the tolerance of an adaptive policy."""
        for record in records:
            self.checks.update(record.info, len(record.keys))

    def sample(self, cells: list[Cell]) -> Sampled:
        """Sample one block of `sampling_blocks`.

        Raises:
            ConfigError: the pipeline takes no such setting.
            RealignError: its calls can't be evaluated by the recipe's policy, or one image doesn't fit in memory.
        """
        try:
            return self._sample(cells, {})
        except (RuntimeError, MemoryError) as error:  # network calls back off by themselves; this is all the rest
            if not is_out_of_memory(error):
                raise
            parts = self._halves(cells, error)
        return _joined([self.sample(part) for part in parts])

    def sample_into(self, store: Store, writer: Writer, blocks: Iterator[list[Cell]]) -> Iterator[CellsRecord]:
        """Sample blocks of a run one after another; their images are saved when their record is yielded.

        Raises:
            ConfigError: as :meth:`sample`.
            RealignError: as :meth:`sample`.
            RunFolderError: the run folder can't be written.
        """

        def save(file: Path, image: Any) -> str:
            return writer.save(file, encode_png(image))

        note_provenance(writer, provenance(self.pipe))
        with ThreadPoolExecutor(_THREADS) as pool:
            for block in blocks:
                sampled = self.sample(block)
                files = [store.image(cell) for cell in block]
                hashes = pool.map(save, files, sampled.images)
                keys = [store.keys(cell) for cell in block]
                yield CellsRecord.of(block, keys, list(hashes), sampled.statistics, sampled.info, sampled.blackened)

    def latents(self, cells: list[Cell]) -> tuple[Tensor, SamplingInfo]:
        """A block's final latents (cells, ...), in the order of its cells; nothing is decoded.

        Raises:
            ConfigError: as :meth:`sample`.
            RealignError: as :meth:`sample`.
        """
        sampled = self._sample(cells, {"output_type": "latent"})
        return torch.stack(sampled.images), sampled.info

    def _halves(self, cells: list[Cell], error: BaseException) -> list[list[Cell]]:
        """A block in two, where memory ran out; later blocks are sampled in parts as small from the start."""
        together = self.recipe.depends_on_lams
        groups = [
            list(group) for _, group in groupby(cells, key=lambda cell: (cell.prompt, cell.seed) if together else cell)
        ]
        if len(groups) == 1:
            raise RealignError(
                "one image alone does not fit in memory; take a smaller size, a smaller dtype, or CPU offload"
            ) from error
        middle = len(groups) // 2
        halves = [[cell for group in part for cell in group] for part in (groups[:middle], groups[middle:])]
        self.largest = max(map(len, halves))
        free_memory(len(cells), self.largest)
        return halves

    def _sample(self, cells: list[Cell], settings: dict[str, Any]) -> Sampled:
        recipe, began, before = self.recipe, time.monotonic(), self.budget.nfe
        filled = cells + [cells[-1]] * (self._rows(cells) - len(cells))
        if recipe.policy == "weights":
            with final_latents(self.pipe) as final:
                images, blackened = self._call(filled, settings)
                check_finite(filled, final())
            info = self._info(cells, recipe.steps * len(cells), began, None, [])
            return Sampled(images[: len(cells)], {}, info, [index for index in blackened if index < len(cells)])
        tolerance, index = self.checks.tolerance, self.checks.select(len(cells))
        lams = len({cell.lam for cell in cells}) if recipe.depends_on_lams else 1
        with ExitStack() as stack:
            stack.enter_context(sweeping(self.handle, lams, self._policy(tolerance), self.budget))
            if recipe.diagnostics:
                stack.enter_context(self.handle.recording())
            final = stack.enter_context(final_latents(self.pipe))
            self.handle.particles = recipe.particles if recipe.needs_particles(cells[0].lam) else 1
            images, blackened = self._call(filled, settings)
            check_finite(filled, final())
            recorded = columns(self.handle.paths) if self.handle.paths and recipe.diagnostics else {}
        counted = self.budget.nfe - before
        shares = [recipe.nfe(cell.lam) for cell in filled]  # copies cost what the last cell does
        filling = round(counted * sum(shares[len(cells) :]) / sum(shares))
        checks = [] if index is None else [self._check(cells, index, final())]
        statistics: dict[str, list[float | None]] = {
            name: [*recorded[name][: len(cells)]] for name in STATISTICS if name in recorded
        }
        nfe = counted - filling
        info = self._info(cells, nfe, began, tolerance, checks)
        return Sampled(images[: len(cells)], statistics, info, [index for index in blackened if index < len(cells)])

    def _info(
        self, cells: list[Cell], nfe: int, began: float, tolerance: float | None, checks: list[SpotCheck]
    ) -> SamplingInfo:
        steps = len(self.pipe.scheduler.timesteps)  # more than the recipe's where each takes several calls (Heun)
        return SamplingInfo(
            nfe=nfe,
            nfe_published=2 * steps * len(cells),
            seconds=time.monotonic() - began,
            lams=tuple(sorted({cell.lam for cell in cells})) if self.recipe.depends_on_lams else (),
            tolerance=tolerance,
            spot_checks=tuple(checks),
        )

    def _rows(self, cells: list[Cell]) -> int:
        """How many cells a block is filled up to."""
        if self.recipe.depends_on_lams:
            return len(cells)
        return min(self.recipe.block_size(cells[0].lam), self.largest or self.recipe.batch_size)

    def _policy(self, tolerance: float | None) -> Policy:
        if self.recipe.policy == "reuse":
            return Reuse(self.recipe.refresh or REFRESH)
        return Exact() if tolerance is None else Adaptive(tolerance)

    def _call(self, cells: list[Cell], settings: dict[str, Any]) -> tuple[list[Any], list[int]]:
        lams = [cell.lam for cell in cells]
        self.handle.lam = lams if len(set(lams)) > 1 else lams[0]
        return call_flagged(
            self.pipe,
            self.recipe,
            [cell.prompt for cell in cells],
            [torch.Generator().manual_seed(noise_seed(cell.prompt, cell.seed)) for cell in cells],
            cells[0].guidance,
            **self.call_kwargs,
            **settings,
        )

    def _check(self, cells: list[Cell], index: int, final: Tensor) -> SpotCheck:
        """One image once more, exactly."""
        budget = Budget(limit=1)
        with sweeping(self.handle, 1, Exact(), budget), final_latents(self.pipe) as exact:
            self._call([cells[index]], {"output_type": "latent"})
        truth = exact()[0].float()
        error = (final[index].float() - truth).norm() / truth.norm()
        return SpotCheck(index=index, error=error.item(), nfe=budget.nfe)


def check_finite(cells: list[Cell], latents: Tensor) -> None:
    """Raise RealignError where some cell's final latents are NaN or infinite: pipelines make black images of them.

    Args:
        cells: of the rows, K particles of a cell side by side.
        latents: ``[rows, ...]``.
    """
    a_cell = len(latents) // len(cells)
    if not a_cell:  # the pipeline steps by another scheduler
        return
    finite = latents.detach().flatten(1).isfinite().all(dim=1)
    by_cell = finite[: a_cell * len(cells)].reshape(len(cells), -1).all(dim=1).tolist()
    broken = list(dict.fromkeys(cell for cell, is_finite in zip(cells, by_cell, strict=True) if not is_finite))
    if broken:
        first = broken[0]
        raise RealignError(
            f"the latents of {len(broken)} image{'s' * (len(broken) > 1)} are NaN or infinite, such as at lam = "
            f"{first.lam:g} (prompt {first.prompt[:60]!r}, seed {first.seed}): a lam too far from 0 to 1 for this "
            "anchor, or a dtype too small for this model; leave that lam out, or take --dtype float32 or bfloat16. "
            "Nothing of this batch is kept"
        )


def sampling_blocks(recipe: Recipe, requests: list[Request], missing: Any, shard: Shard) -> Iterator[list[Cell]]:
    """The blocks that a shard samples, one after another, of the cells of requests that are missing.

    Args:
        recipe: whose policy says which cells go together.
        requests: all that was asked for.
        missing: picks the missing ones from an iterable of cells, in their order.
        shard: k of n; which cells are a shard's does not depend on what is missing.
    """
    if recipe.depends_on_lams:
        for block in shard_blocks(recipe, requests, shard):
            yield from _rectangles(missing(block))
        return
    cells = cells_of_shard(recipe, requests, shard)
    if recipe.policy == "weights":
        yield from _sorted_blocks(recipe, missing(cells))
        return
    waiting: dict[bool, list[Cell]] = {False: [], True: []}  # cells with particles are sampled apart
    for cell in missing(cells):
        kind = recipe.needs_particles(cell.lam)
        block = waiting[kind]
        if block and (len(block) == recipe.block_size(cell.lam) or block[0].guidance != cell.guidance):
            yield block
            block = waiting[kind] = []
        block.append(cell)
    yield from (block for block in waiting.values() if block)


def _sorted_blocks(recipe: Recipe, cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Lam by lam, as the weights of the one network depend on it; all prompts of a few thousand cells at a time."""
    for chunk in blocks(cells, 512 * recipe.batch_size):
        for _, group in groupby(sorted(chunk, key=lambda cell: cell.lam), key=lambda cell: cell.lam):
            yield from blocks(group, recipe.batch_size)


def _rectangles(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """The cells of some (prompt, seed) pairs; pairs that lack the same lams together, as their predictions go."""
    by_lams: dict[tuple[float, ...], list[Cell]] = {}
    for _, group in groupby(cells, key=lambda cell: (cell.prompt, cell.seed)):
        pair = list(group)
        by_lams.setdefault(tuple(cell.lam for cell in pair), []).extend(pair)
    yield from by_lams.values()


def _joined(parts: list[Sampled]) -> Sampled:
    """The parts of a block as one."""
    infos, checks, blackened, start = [part.info for part in parts], list[SpotCheck](), list[int](), 0
    for part in parts:
        checks += [check.model_copy(update={"index": start + check.index}) for check in part.info.spot_checks]
        blackened += [start + index for index in part.blackened]
        start += len(part.images)
    return Sampled(
        images=[image for part in parts for image in part.images],
        statistics={name: [value for part in parts for value in part.statistics[name]] for name in parts[0].statistics},
        info=infos[0].model_copy(
            update={
                "nfe": sum(info.nfe for info in infos),
                "nfe_published": sum(info.nfe_published for info in infos),
                "seconds": sum(info.seconds for info in infos),
                "spot_checks": tuple(checks),
            }
        ),
        blackened=blackened,
    )
