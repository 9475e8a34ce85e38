"""The lines of a run's journals, one JSON object each."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from deradiff.errors import RunFolderError
from deradiff.reading import parse_model, parse_object
from deradiff.results import RewardInfo
from deradiff.runs.cells import Cell
from deradiff.validation import Seed

_CONFIG = ConfigDict(frozen=True, extra="forbid")
R = TypeVar("R", bound=BaseModel)
Finite = Annotated[float, Field(allow_inf_nan=False)]
Varies = Literal["seed", "lam"]

STATISTICS = ("q", "implicit_reward", "log_weight", "ess", "ancestors")
"""Trajectory statistics that a journal may hold; path KLs follow from q and lam."""


class SpotCheck(BaseModel):
    """One image of a block sampled exactly too.

    Attributes:
        index: of the image in its block.
        error: of its final latents, relative, in the Euclidean norm.
        nfe: network function evaluations of the exact sampling.
    """

    model_config = _CONFIG
    index: int = Field(ge=0)
    error: float = Field(ge=0)
    nfe: int = Field(ge=0)


class SamplingInfo(BaseModel):
    """How a block of images was sampled.

    Attributes:
        nfe: network function evaluations, without those of spot checks, which count their own.
        nfe_published: those of the published way: two a step at every lam.
        seconds: it took, decoding and saving included.
        lams: that were computed together, where predictions depend on each other (adaptive, reuse); else empty.
        tolerance: of an adaptive policy.
        spot_checks: of an adaptive policy.
    """

    model_config = _CONFIG
    nfe: int = Field(ge=0)
    nfe_published: int = Field(ge=0)
    seconds: Finite = Field(default=0.0, ge=0)
    lams: tuple[Finite, ...] = ()
    tolerance: Finite | None = None
    spot_checks: tuple[SpotCheck, ...] = ()


class CellsRecord(BaseModel):
    """Images that are sampled and on disk; its lists hold one entry an image.

    Attributes:
        keys: of the cells.
        prompts: each once.
        cells: index of the prompt, seed, guidance and lam.
        sha256: of the image files.
        statistics: name (`STATISTICS`) -> value of each image's trajectory, None where it isn't known.
        info: how they were sampled.
        blackened: indices of images that the pipeline's safety checker made black.
    """

    model_config = _CONFIG
    kind: Literal["cells"] = "cells"
    keys: tuple[str, ...] = Field(min_length=1)
    prompts: tuple[str, ...]
    cells: tuple[tuple[int, Seed, Finite | None, Finite], ...]
    sha256: tuple[str, ...]
    statistics: dict[str, tuple[Finite | None, ...]] = {}
    info: SamplingInfo
    blackened: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _lengths(self) -> "CellsRecord":
        lengths = {len(self.keys), len(self.cells), len(self.sha256), *map(len, self.statistics.values())}
        if len(lengths) != 1:
            raise ValueError(f"its lists have {sorted(lengths)} entries; expected one an image")
        if any(not 0 <= prompt < len(self.prompts) for prompt, *_ in self.cells):
            raise ValueError("a cell has a prompt that isn't there")
        if any(not 0 <= index < len(self.keys) for index in self.blackened):
            raise ValueError("a blackened image that isn't there")
        return self

    @classmethod
    def of(
        cls,
        cells: list[Cell],
        keys: list[str],
        sha256: list[str],
        statistics: dict[str, list[float | None]],
        info: SamplingInfo,
        blackened: Sequence[int] = (),
    ) -> "CellsRecord":
        """A record of some cells, in their order."""
        prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(cell.prompt for cell in cells))}
        return cls(
            keys=tuple(keys),
            prompts=tuple(prompts),
            cells=tuple((prompts[cell.prompt], *cell[1:]) for cell in cells),
            sha256=tuple(sha256),
            statistics={name: tuple(map(_finite_or_none, values)) for name, values in statistics.items()},
            info=info,
            blackened=tuple(blackened),
        )

    def select(self, indices: list[int]) -> "CellsRecord":
        """A record of some of its cells."""
        return self.model_copy(
            update={
                "keys": tuple(self.keys[index] for index in indices),
                "cells": tuple(self.cells[index] for index in indices),
                "sha256": tuple(self.sha256[index] for index in indices),
                "statistics": {
                    name: tuple(values[index] for index in indices) for name, values in self.statistics.items()
                },
                "blackened": tuple(new for new, index in enumerate(indices) if index in self.blackened),
            }
        )

    def values(self) -> list[Cell]:
        """Its cells."""
        return [Cell(self.prompts[prompt], seed, guidance, lam) for prompt, seed, guidance, lam in self.cells]


class ScoreRecord(BaseModel):
    """Scores of some images by one reward; its lists hold one entry an image.

    Attributes:
        reward: its name.
        info: of the reward's scale, from its card.
        keys: of the cells.
        sha256: of the image files that were scored; a score of another file is stale.
        scores: None where the reward failed, or a metric of groups has too small a group.
        varies: of a metric that compares images, in which of their values those of a group differ; else None.
        groups: of such a metric, a hash of all images that were compared; a score of another group is stale.
    """

    model_config = _CONFIG
    kind: Literal["scores"] = "scores"
    reward: str
    info: RewardInfo = RewardInfo()
    keys: tuple[str, ...] = Field(min_length=1)
    sha256: tuple[str, ...]
    scores: tuple[float | None, ...]
    varies: Varies | None = None
    groups: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _lengths(self) -> "ScoreRecord":
        lengths = {len(self.keys), len(self.sha256), len(self.scores), len(self.groups or self.keys)}
        if len(lengths) != 1:
            raise ValueError(f"its lists have {sorted(lengths)} entries; expected one an image")
        return self


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def parse_record(kind: type[R], line: bytes, where: str) -> R:
    """The record in a line.

    Raises:
        RunFolderError: it is damaged; says which line, and what to do.
    """
    return parse_model(kind, line, f"{where},", "delete that line and run the same command again")


def keys_of(line: bytes, where: str) -> list[str]:
    """The keys in a line of a journal of cells, without validating the rest of it.

    Raises:
        RunFolderError: it has none.
    """
    try:
        return _Keys.model_validate_json(line).keys
    except ValidationError as error:
        parse_object(line, where)  # says so where it is no JSON
        raise RunFolderError(
            f"{where}, is no line of a run's journal; delete that line and run the same command again"
        ) from error


class _Keys(BaseModel):
    keys: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]]
