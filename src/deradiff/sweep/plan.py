"""The plan of a sweep: frozen, validated, and enough to make every image again."""

import json
import math
from collections.abc import Callable, Hashable, Iterator
from hashlib import sha256
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from deradiff.errors import PlanError, problems
from deradiff.sweep.batches import Batch, Cell, batch_at, batch_count

T = TypeVar("T", bound=Hashable)

# What an image does not depend on, or depends on through its own prompt, seed, guidance and lam alone.
_NOT_OF_AN_IMAGE = {"prompts", "seeds", "guidances", "lams", "anchor_beta", "batch_size", "diagnostics"}


class Plan(BaseModel):
    """A sweep of lams over prompts, seeds and guidances; one (prompt, seed) has the same noise at every lam.

    Attributes:
        model: folder or hub id of the pipeline (the reference).
        anchor: folder or hub id of the aligned model.
        prompts: no two the same.
        seeds: each image's generator starts from its prompt and seed.
        lams: ascending; 0 is the reference, 1 the anchor.
        guidances: classifier-free guidance scales; None is the pipeline's default.
        anchor_beta: KL strength the anchor was aligned at, where known.
        component: the denoiser, where it can't be told.
        scheduler: diffusers class name; None keeps the pipeline's own.
        steps: denoising steps.
        height: pixels; None keeps the pipeline's default.
        width: pixels; None keeps the pipeline's default.
        dtype: of the weights.
        batch_size: images through a network at once, part of the plan because other sizes round differently.
        mode: how networks are called: ``exact``, or with fewer calls ``reuse``, ``adaptive``, ``weights``.
        refresh: of the mode ``reuse``, every how many steps the anchor is computed.
        quality: of the mode ``adaptive``, the mean error of final latents that spot checks aim at; 0.01 is 1 %.
        diagnostics: record what each image's path tells (path KL, ...), for which both models run at every lam.
        particles: K of each image at 0 < lam < 1, of the Feynman–Kac correction; 1 is plain DeRaDiff.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    anchor: str
    prompts: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    lams: tuple[float, ...] = Field(min_length=1)
    guidances: tuple[float | None, ...] = Field(default=(None,), min_length=1)
    anchor_beta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    component: str | None = None
    scheduler: str | None = None
    steps: int = Field(default=25, ge=1)
    height: int | None = Field(default=None, ge=8, multiple_of=8)
    width: int | None = Field(default=None, ge=8, multiple_of=8)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_size: int = Field(default=8, ge=1)
    mode: Literal["exact", "reuse", "adaptive", "weights"] = "exact"
    refresh: int | None = Field(default=None, ge=1)
    quality: float | None = Field(default=None, gt=0, lt=1)
    diagnostics: bool = True
    particles: int = Field(default=1, ge=1)

    @field_validator("prompts")
    @classmethod
    def _prompts(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not prompt.strip() for prompt in prompts):
            raise ValueError("a prompt is empty")
        return _unique(prompts, "prompt")

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _unique(seeds, "seed")

    @field_validator("lams")
    @classmethod
    def _lams(cls, lams: tuple[float, ...]) -> tuple[float, ...]:
        return _unique(tuple(sorted(_finite(lam, "lams") for lam in lams)), "lam")

    @field_validator("guidances")
    @classmethod
    def _guidances(cls, guidances: tuple[float | None, ...]) -> tuple[float | None, ...]:
        if len(guidances) > 1 and None in guidances:
            raise ValueError("the pipeline's default (None) can't be one of several; give it as a number")
        return _unique(tuple(None if g is None else _finite(g, "guidances") for g in guidances), "guidance")

    @model_validator(mode="after")
    def _size(self) -> "Plan":
        if (self.height is None) != (self.width is None):  # pipelines then fall back to their own size for both
            raise ValueError("height and width go together; give both, or neither")
        return self

    @field_validator("particles")
    @classmethod
    def _particles(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("mode") != "exact":
            raise ValueError("needs both models at every step; choose mode='exact', or leave it out")
        return value

    @field_validator("refresh", "quality")
    @classmethod
    def _of_the_mode(cls, value: float | None, info: ValidationInfo) -> float | None:
        mode = {"refresh": "reuse", "quality": "adaptive"}[str(info.field_name)]
        if value is not None and info.data.get("mode") != mode:
            raise ValueError(f"is a setting of mode={mode!r}; choose that mode, or leave it out")
        return value

    @classmethod
    def of(cls, **settings: object) -> "Plan":
        """A plan from settings as the user gives them.

        Raises:
            PlanError: names each setting that is wrong and why.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise PlanError(f"the plan can't be run: {problems(error.errors())}") from error

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.prompts) * len(self.seeds) * len(self.guidances) * len(self.lams)

    @property
    def batch_count(self) -> int:
        """How many batches."""
        return batch_count(self)

    def batch(self, index: int) -> Batch:
        """One batch, found without counting through the others.

        Raises:
            IndexError: there is none of that index.
        """
        return batch_at(self, index)

    def batches(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """The batches of shard k of n, always the same ones, so that a resumed run repeats them exactly.

        Raises:
            PlanError: not 0 <= k < n.
        """
        own, shards = shard
        if not 0 <= own < shards:
            raise PlanError(f"there is no shard {own} of {shards}: expected 0 <= shard < {shards}")
        return map(self.batch, range(own, self.batch_count, shards))

    def cells(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Cell]:
        """Every image of a shard, batch by batch."""
        return (cell for batch in self.batches(shard) for cell in batch.cells(self))

    def image_names(self) -> Callable[[Cell], str]:
        """What names a cell's image: ``images/ab/abcdef....png``, a hash of all that the image depends on."""
        plain = {"particles"} if self.particles == 1 else set()  # names of runs that knew none
        settings = self.model_dump_json(exclude=_NOT_OF_AN_IMAGE | plain)

        def name(cell: Cell) -> str:
            own = (self.prompts[cell.prompt], self.seeds[cell.seed], self.guidances[cell.guidance], self.lams[cell.lam])
            digest = sha256(f"{settings}\n{json.dumps(own)}".encode()).hexdigest()[:32]
            return f"images/{digest[:2]}/{digest}.png"

        return name


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} must be finite")
    return value + 0.0  # -0.0 is 0.0, also in an image's name


def _unique(items: tuple[T, ...], what: str) -> tuple[T, ...]:
    seen: set[T] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"the {what} {item!r} is given twice")
        seen.add(item)
    return items
