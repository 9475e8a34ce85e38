"""The plan of a sweep: frozen, validated, and enough to make every image again."""

import json
import math
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from deradiff.errors import PlanError

T = TypeVar("T")


class Cell(NamedTuple):
    """One image: its indices into the plan's prompts, seeds and lams."""

    prompt: int
    seed: int
    lam: int


class Plan(BaseModel):
    """A sweep of lams over prompts and seeds; the images of one (prompt, seed) share all noise across lams.

    Attributes:
        model: folder or hub id of the pipeline (the reference).
        anchor: folder or hub id of the aligned model.
        prompts: no two the same.
        seeds: each image's generator starts from its prompt and seed.
        lams: ascending; 0 is the reference, 1 the anchor.
        anchor_beta: KL strength the anchor was aligned at, where known.
        component: the denoiser, where it can't be told.
        scheduler: diffusers class name; None keeps the pipeline's own.
        steps: denoising steps.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        height: pixels; None keeps the pipeline's default.
        width: pixels; None keeps the pipeline's default.
        half: weights in float16.
        batch_size: images a batch, part of the plan because batches of other sizes round differently.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    anchor: str
    prompts: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    lams: tuple[float, ...] = Field(min_length=1)
    anchor_beta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    component: str | None = None
    scheduler: str | None = None
    steps: int = Field(default=25, ge=1)
    guidance: float | None = Field(default=None, allow_inf_nan=False)
    height: int | None = Field(default=None, ge=8)
    width: int | None = Field(default=None, ge=8)
    half: bool = False
    batch_size: int = Field(default=8, ge=1)

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
        if not all(math.isfinite(lam) for lam in lams):
            raise ValueError("lams must be finite")
        return _unique(tuple(sorted(lams)), "lam")

    @classmethod
    def of(cls, **settings: object) -> "Plan":
        """A plan from settings as the user gives them.

        Raises:
            PlanError: names each setting that is wrong and why.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()
            )
            raise PlanError("the plan can't be run: " + problems.replace("Value error, ", "")) from error

    def cells(self) -> Iterator[Cell]:
        """Every image, lam by lam."""
        for lam in range(len(self.lams)):
            for prompt in range(len(self.prompts)):
                for seed in range(len(self.seeds)):
                    yield Cell(prompt, seed, lam)

    def batches(self) -> Iterator[list[Cell]]:
        """The cells in batches of one lam each, always the same ones, so that a resumed run repeats them exactly."""
        for lam in range(len(self.lams)):
            own = [cell for cell in self.cells() if cell.lam == lam]
            for start in range(0, len(own), self.batch_size):
                yield own[start : start + self.batch_size]

    def image_name(self, cell: Cell) -> str:
        """File name of a cell's image, by what the image depends on."""
        content = self.model_dump(exclude={"prompts", "seeds", "lams", "anchor_beta", "batch_size"})
        content |= {"prompt": self.prompts[cell.prompt], "seed": self.seeds[cell.seed], "lam": self.lams[cell.lam]}
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20] + ".png"


def _unique(items: tuple[T, ...], what: str) -> tuple[T, ...]:
    double = next((item for place, item in enumerate(items) if item in items[:place]), None)
    if double is not None:
        raise ValueError(f"the {what} {double!r} is given twice")
    return items
