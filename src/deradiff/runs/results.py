"""From a run's records to the table that is chosen from and drawn: prompts x seeds x lams, with gaps."""

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import blake2b, sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deradiff.errors import RunFolderError
from deradiff.reading import exists, read_whole
from deradiff.results import Results, RewardInfo
from deradiff.runs.cells import Cell, image_name, union
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import STATISTICS, ScoreRecord, Varies
from deradiff.runs.store import Store
from deradiff.runs.votes import read_votes

Floats = NDArray[np.float64]
DEFAULT = "the pipeline's default"
_GENERATED = (  # what ``deradiff generate`` takes of a recipe, besides the models
    *("model_subfolder", "model_revision", "model_variant"),
    *("anchor_subfolder", "anchor_revision", "anchor_variant", "anchor_weight_name"),
    *("component", "scheduler", "steps", "particles", "height", "width", "dtype"),
)
_DEFAULTS = {name: Recipe.model_fields[name].default for name in _GENERATED}


class Image(NamedTuple):
    """What the journals say of a cell: of several lines about one, the last counts.

    Attributes:
        cell: its values.
        key: its key.
        sha256: of its file.
        statistics: of its trajectory, nan where unknown; as `STATISTICS`.
        computed_with: the lams whose predictions its own depends on; empty where it depends on none.
        blackened: whether the pipeline's safety checker made it black.
    """

    cell: Cell
    key: str
    sha256: str
    statistics: tuple[float, ...]
    computed_with: tuple[float, ...] = ()
    blackened: bool = False


def journalled_images(store: Store) -> dict[Cell, Image]:
    """All cells that are journalled.

    Raises:
        RunFolderError: a line is damaged, or of another recipe.
    """
    images: dict[Cell, Image] = {}
    contradicting: dict[Cell, list[Image]] = {}
    for record in store.records():
        unknown = (np.nan,) * len(record.keys)
        columns = [
            [np.nan if value is None else value for value in record.statistics[name]]
            if name in record.statistics
            else unknown
            for name in STATISTICS
        ]
        rows = zip(*columns, strict=True)
        entries = zip(record.values(), record.keys, record.sha256, rows, strict=True)
        for number, (cell, key, digest, row) in enumerate(entries):
            image = Image(cell, key, digest, row, record.info.lams, number in record.blackened)
            if images.setdefault(cell, image).sha256 != digest:
                contradicting.setdefault(cell, [images[cell]]).append(image)
            images[cell] = image
    for cell, several in contradicting.items():  # journals don't say which of them is the later one: the file does
        images[cell] = _on_disk(store, several)
    return images


def _on_disk(store: Store, images: list[Image]) -> Image:
    """Which of several versions of an image its file is; the last where it is none or has gone."""
    file = store.folder / image_name(images[0].key)
    if not exists(file, "the image"):
        return images[-1]
    digest = sha256(read_whole(file, "the image", inside=store.folder)).hexdigest()
    return next((image for image in reversed(images) if image.sha256 == digest), images[-1])


def load_results(
    store: Store,
    guidance: float | None = None,
    *,
    partly: bool = False,
    images: Mapping[Cell, Image] | None = None,
) -> Results:
    """The images of one guidance as a table: prompts and seeds sorted, nan and "" where nothing is.

    Args:
        store: of the run.
        guidance: one of the run's; None is the only one, or among several the pipeline's default.
        partly: keep rewards that some images have no score of yet, nan there, instead of leaving them out.
        images: of `journalled_images`, where they are at hand.

    Raises:
        RunFolderError: no image yet; a damaged line; a recorded score that is not finite; or no guidance of the run,
            which are then listed.
    """
    images = journalled_images(store) if images is None else images
    if not images:
        raise RunFolderError(f"{store.folder} has no images yet; run the same deradiff sweep or search again")
    chosen = _guidance({cell.guidance for cell in images}, guidance)
    selected = {cell: image for cell, image in images.items() if cell.guidance == chosen}
    table = _Table(selected.values())
    on_disk = store.images_on_disk()
    there = dict(zip(selected, on_disk.holds([image.key for image in selected.values()]).tolist(), strict=True))
    files = np.full(table.shape, "", dtype=object)
    for cell, image in selected.items():
        if there[cell]:
            files[table.index(cell)] = f"{store.folder}{os.sep}{image_name(image.key)}"
    scores, unscored, infos = _scores(store, table, selected, there, partly)
    statistics = _statistics(table, selected.values())
    return Results(
        prompts=table.prompts,
        seeds=table.seeds,
        lams=table.lams,
        scores=scores,
        images=files,
        folder=store.folder,
        unscored=unscored,
        path_kl=statistics.pop("path_kl", None),
        paths=statistics,
        rewards=infos,
        anchor_beta=store.recipe.anchor_beta,
        votes=[vote for vote in read_votes(store) if vote.guidance == chosen],
        missing=sum(cell not in selected for cell in union(store.requests()) if cell.guidance == chosen),
        details={**recipe_details(store.recipe, chosen), **_computed_together(selected.values())},
        command=generate_command(store, chosen),
    )


def guidances_of(store: Store, images: Iterable[Cell]) -> list[float | None]:
    """The guidances that have images; where there is no image yet, those that were asked for.

    Raises:
        RunFolderError: a line of requests is damaged.
    """
    asked = {guidance for request in store.requests() for guidance in request.guidances}
    there = {cell.guidance for cell in images}
    return sorted(there or asked, key=lambda guidance: (guidance is not None, guidance or 0.0))


def guidance_name(scale: float | None) -> str:
    """A guidance scale in words, of a run that has several."""
    return "the default guidance" if scale is None else f"guidance {scale:g}"


def group_hash(digests: Iterable[str]) -> str:
    """A hash of some image files, in any order."""
    return blake2b("".join(sorted(digests)).encode(), digest_size=8).hexdigest()


def group_of(cell: Cell, varies: Varies) -> Cell:
    """What is the same for all cells that differ in one value only."""
    return cell._replace(seed=0) if varies == "seed" else cell._replace(lam=0.0)


class _Table:
    """The axes of a table, and where a cell stands in it."""

    def __init__(self, images: Iterable[Image]) -> None:
        cells = [image.cell for image in images]
        self.prompts = sorted({cell.prompt for cell in cells})
        self.seeds = sorted({cell.seed for cell in cells})
        self.lams = sorted({cell.lam for cell in cells})
        self.shape = len(self.prompts), len(self.seeds), len(self.lams)
        self._of_prompt = {prompt: number for number, prompt in enumerate(self.prompts)}
        self._of_seed = {seed: number for number, seed in enumerate(self.seeds)}
        self._of_lam = {lam: number for number, lam in enumerate(self.lams)}

    def index(self, cell: Cell) -> tuple[int, int, int]:
        return self._of_prompt[cell.prompt], self._of_seed[cell.seed], self._of_lam[cell.lam]


def _statistics(table: _Table, images: Iterable[Image]) -> dict[str, Floats]:
    """The trajectory statistics that were recorded, and those that follow from them."""
    values = np.full((*table.shape, len(STATISTICS)), np.nan)
    for image in images:
        values[table.index(image.cell)] = image.statistics
    known = {name: values[..., number] for number, name in enumerate(STATISTICS)}
    lams, q = np.array(table.lams), known["q"]
    known["path_kl"], known["path_kl_to_anchor"] = 0.5 * lams**2 * q, 0.5 * (1 - lams) ** 2 * q
    plain = -0.5 * lams * (1 - lams) * q  # the weight of one particle; of several it is recorded
    known["log_weight"] = np.where(np.isnan(known["log_weight"]), plain, known["log_weight"])
    return {name: column for name, column in known.items() if np.isfinite(column).any()}


def _scores(
    store: Store, table: _Table, images: Mapping[Cell, Image], there: Mapping[Cell, bool], partly: bool
) -> tuple[dict[str, Floats], dict[str, int], dict[str, RewardInfo]]:
    """By reward its scores; how many images that could be scored have none, where that is some; and its scale."""
    by_key = {image.key: image for image in images.values()}
    tables: dict[str, Floats] = {}
    known: dict[str, set[str]] = {}
    infos: dict[str, RewardInfo] = {}

    @cache
    def groups(varies: Varies) -> dict[Cell, str]:
        return current_groups(images.values(), varies)

    for record in store.scores():
        if record.reward not in tables:
            tables[record.reward], known[record.reward] = np.full(table.shape, np.nan), set()
        values, scored = tables[record.reward], known[record.reward]
        infos[record.reward] = record.info
        for number, key in enumerate(record.keys):
            image = by_key.get(key)
            if image is not None and is_current(record, number, image, groups):
                scored.add(key)
                if (score := record.scores[number]) is not None:  # None says that the reward failed, or can't be asked
                    values[table.index(image.cell)] = score
    for name, values in tables.items():
        if bad := int(np.isinf(values).sum()):
            raise RunFolderError(
                f"{name}: {bad} of {values.size} scores in {store.folder / 'rewards.jsonl'} are infinite, expected "
                f"finite numbers; delete that reward's lines there, then deradiff score {store.folder} --rewards {name}"
            )
    lacking = {
        name: sum(is_there and images[cell].key not in known.get(name, ()) for cell, is_there in there.items())
        for name in tables
    }
    unscored = {
        name: count for name, count in lacking.items() if (count and not partly) or np.isnan(tables[name]).all()
    }
    return {name: values for name, values in tables.items() if name not in unscored}, unscored, infos


def current_groups(images: Iterable[Image], varies: Varies) -> dict[Cell, str]:
    """The hash of each group's images as they are now."""
    members: dict[Cell, list[str]] = {}
    for image in images:
        members.setdefault(group_of(image.cell, varies), []).append(image.sha256)
    return {group: group_hash(digests) for group, digests in members.items()}


def is_current(record: ScoreRecord, number: int, image: Image, groups: Callable[[Varies], Mapping[Cell, str]]) -> bool:
    """Whether a recorded score is of an image as it is now, among the images that it was compared with."""
    if record.sha256[number] != image.sha256:
        return False
    if record.varies is None or record.groups is None:
        return True
    return groups(record.varies)[group_of(image.cell, record.varies)] == record.groups[number]


def _computed_together(images: Iterable[Image]) -> dict[str, str]:
    """Which lams' predictions depend on each other."""
    together = sorted({image.computed_with for image in images if image.computed_with})
    named = ["{" + ", ".join(f"{lam:g}" for lam in lams) + "}" for lams in together]
    return {"Lams computed together": " ".join(named)} if named else {}


def _guidance(known: set[float | None], asked: float | None) -> float | None:
    if asked is None and len(known) == 1:
        return next(iter(known))
    if asked not in known:
        problem = "none was named" if asked is None else f"{asked:g} is not among them"
        named = ", ".join(DEFAULT if value is None else f"{value:g}" for value in sorted(known, key=lambda g: g or 0.0))
        raise RunFolderError(f"the run has guidance {named}, and {problem}; choose one of them")
    return asked


def generate_command(store: Store, guidance: float | None) -> str:
    """``deradiff generate`` with a run's recipe; prompt, lam and seed follow. Empty where models were given in hand."""
    recipe = store.recipe
    if not recipe.model or not recipe.anchor:
        return ""
    models = {part: store.located(getattr(recipe, part)) for part in ("model", "anchor")}
    settings = {name: getattr(recipe, name) for name in _GENERATED if getattr(recipe, name) != _DEFAULTS[name]}
    values = {**models, **settings, **({} if guidance is None else {"guidance": f"{guidance:g}"})}
    options = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return shlex.join(["deradiff", "generate", *options])


def recipe_details(recipe: Recipe, guidance: float | None) -> dict[str, str]:
    """What a reader needs to repeat a run."""
    policy = recipe.policy if recipe.particles == 1 else f"{recipe.policy}, {recipe.particles} particles"
    return {
        "Model": recipe.model,
        "Anchor": recipe.anchor,
        "Scheduler": recipe.scheduler or "the pipeline's own",
        "Steps": str(recipe.steps),
        "Guidance": DEFAULT if guidance is None else f"{guidance:g}",
        "Size": DEFAULT if recipe.height is None else f"{recipe.height} x {recipe.width}",
        "Policy": policy,
        **({} if recipe.ensemble == "auto" else {"Ensemble": recipe.ensemble}),
        "Weights": recipe.dtype,
    }
