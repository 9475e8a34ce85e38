"""From a run's records to the dense table that is chosen from and drawn."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deradiff.errors import PlanError
from deradiff.results import Results, RewardInfo
from deradiff.sweep.batches import Batch
from deradiff.sweep.plan import Plan

if TYPE_CHECKING:
    from deradiff.sweep.journal import Journal


def results(journal: "Journal", guidance: float | None) -> Results:
    """The images of one guidance; see ``Journal.results``."""
    plan, place = journal.plan, _place(journal.plan, guidance)
    shape = (len(plan.prompts), len(plan.seeds), len(plan.lams))
    images, path_kl = np.empty(shape, dtype=object), np.full(shape, np.nan)
    paths: dict[str, NDArray[np.float64]] = {}
    editions = np.full(plan.batch_count, -1)
    index, missing = journal.index(), 0
    for batch in plan.batches():
        if batch.guidance != place:
            continue
        record = index.get(batch.index)
        if record is None:
            missing += batch.count(plan)
            continue
        editions[batch.index] = record.edition
        for cell in batch.cells(plan):
            file = journal.image(cell)
            missing += not file.is_file()
            images[cell.prompt, cell.seed, cell.lam] = str(file)
        for name, column in {"path_kl": record.path_kl, **record.paths}.items():
            table = path_kl if name == "path_kl" else paths.setdefault(name, np.full(shape, np.nan))
            _block(table, batch)[:] = np.reshape(np.array(column, dtype=float), _block(table, batch).shape)
    if missing:
        raise lacking(journal, missing, images.size)
    scores, unscored, infos = _scores(journal, editions, shape)
    return Results(
        prompts=plan.prompts,
        seeds=plan.seeds,
        lams=plan.lams,
        scores=scores,
        images=images,
        unscored=unscored,
        path_kl=path_kl if np.isfinite(path_kl).all() else None,
        paths=paths,
        rewards=infos,
        anchor_beta=plan.anchor_beta,
        details=_details(plan, plan.guidances[place]),
    )


def lacking(journal: "Journal", missing: int, count: int) -> PlanError:
    """What to say of a run without all its images."""
    return PlanError(f"{journal.folder} lacks {missing} of {count} images; run the same deradiff sweep or search again")


def _scores(
    journal: "Journal", editions: NDArray[Any], shape: tuple[int, ...]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int], dict[str, RewardInfo]]:
    """By reward its scores; of how many images as they are now it has none, where that is some; and its scale.

    Editions are -1 for other guidances.
    """
    tables: dict[str, NDArray[np.float64]] = {}
    known: dict[str, NDArray[np.bool_]] = {}  # nan won't do for what isn't scored: a journal may hold nan
    infos: dict[str, RewardInfo] = {}
    for _, record in journal.scores:
        table = tables.setdefault(record.reward, np.full(shape, np.nan))
        there = known.setdefault(record.reward, np.zeros(shape, bool))
        infos[record.reward] = record.info
        if record.edition == editions[record.batch]:
            batch = journal.plan.batch(record.batch)
            _block(table, batch)[:] = np.reshape(record.scores, _block(table, batch).shape)
            _block(there, batch)[:] = True
    for name, table in tables.items():
        if bad := int(np.sum(known[name] & ~np.isfinite(table))):
            raise PlanError(
                f"{name}: {bad} of {table.size} scores in {journal.scores.path} are nan or infinite, expected finite "
                f"numbers; delete that reward's lines there, then deradiff score {journal.folder} --rewards {name}"
            )
    unscored = {name: int(np.sum(~there)) for name, there in known.items() if not there.all()}
    return {name: table for name, table in tables.items() if name not in unscored}, unscored, infos


def _block(table: NDArray[Any], batch: Batch) -> NDArray[Any]:
    """The part (prompts, seeds, lams) of a table that a batch fills."""
    return table[batch.prompts.start : batch.prompts.stop, batch.seeds.start : batch.seeds.stop]


def _place(plan: Plan, guidance: float | None) -> int:
    if guidance is None and len(plan.guidances) == 1:
        return 0
    if guidance is None or guidance not in plan.guidances:
        given = "none was named" if guidance is None else f"{guidance:g} is not among them"
        named = ", ".join("the pipeline's default" if own is None else f"{own:g}" for own in plan.guidances)
        raise PlanError(f"the run has guidance {named}, and {given}; choose one of them")
    return plan.guidances.index(guidance)


def _details(plan: Plan, guidance: float | None) -> dict[str, str]:
    size = "the pipeline's default" if plan.height is None and plan.width is None else f"{plan.height} x {plan.width}"
    return {
        "Model": plan.model,
        "Anchor": plan.anchor,
        "Scheduler": plan.scheduler or "the pipeline's own",
        "Steps": str(plan.steps),
        "Guidance": "the pipeline's default" if guidance is None else f"{guidance:g}",
        "Size": size,
        "Mode": plan.mode if plan.particles == 1 else f"{plan.mode}, {plan.particles} particles",
        "Weights": plan.dtype,
    }
