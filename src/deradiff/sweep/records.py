"""The lines of a journal: what one says, and the append-only files they stand in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deradiff.errors import PlanError
from deradiff.results import RewardInfo

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class BatchRecord(BaseModel):
    """A batch that is sampled and on disk; its lists hold one entry an image, in the order of the batch's cells.

    Attributes:
        batch: index of the batch.
        edition: how many times its images have changed since (made again by other versions of a library).
        sha256: of the image files.
        path_kl: nats; None where it isn't known.
        paths: what else is known of the images' paths (`deradiff.paths.Paths`), by name.
        info: what the sampler needs to repeat the batch.
    """

    model_config = _CONFIG
    kind: Literal["batch"] = "batch"
    batch: int = Field(ge=0)
    edition: int = Field(default=0, ge=0)
    sha256: list[str]
    path_kl: list[float | None]
    paths: dict[str, list[float | None]] = {}
    info: dict[str, Any]


class ScoreRecord(BaseModel):
    """Scores of one edition of a batch by one reward, one an image, in the order of the batch's cells.

    Attributes:
        batch: index of the batch.
        edition: of its images.
        reward: its name.
        info: of the reward's scale, from its card.
        scores: one an image.
    """

    model_config = _CONFIG
    kind: Literal["score"] = "score"
    batch: int = Field(ge=0)
    edition: int = Field(default=0, ge=0)
    reward: str
    info: RewardInfo = RewardInfo()
    scores: list[float]

    @model_validator(mode="before")
    @classmethod
    def _read_better(cls, fields: Any) -> Any:
        """Scores written before rewards had margins tell their direction under another name."""
        if isinstance(fields, dict) and "better" in fields:
            direction = fields.pop("better")
            fields.setdefault("info", {"direction": direction})
        return fields


R = TypeVar("R", BatchRecord, ScoreRecord)


class Records(Generic[R]):
    """A file of records, one a line; a crash can tear the last line only, which then doesn't count.

    Args:
        path: the file; it need not exist.
        kind: class of the records.
        fits: says what doesn't fit the plan in a record, or None.
    """

    def __init__(self, path: Path, kind: type[R], fits: Callable[[R], str | None]) -> None:
        self.path, self._kind, self._fits = path, kind, fits

    def __iter__(self) -> Iterator[tuple[int, R]]:
        """Every whole record, oldest first, with the byte it starts at.

        Raises:
            PlanError: a record is damaged; says which.
        """
        for number, (start, line) in enumerate(self._lines(), start=1):
            yield start, self._parse(line, f"line {number}")

    def at(self, start: int) -> R:
        """The record that starts at a byte."""
        with self.path.open("rb") as file:
            file.seek(start)
            return self._parse(file.readline(), f"the line at byte {start}")

    def cut_torn(self) -> None:
        """Cut off a torn last line, so that the next record starts on a line of its own."""
        if self.path.exists():
            whole = sum(len(line) for _, line in self._lines())
            if whole < self.path.stat().st_size:
                with self.path.open("rb+") as file:
                    file.truncate(whole)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        if not self.path.exists():
            return
        start = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield start, line
                start += len(line)

    def _parse(self, line: bytes, where: str) -> R:
        try:
            record = self._kind.model_validate_json(line)
            problem = self._fits(record)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
        else:
            if problem is None:
                return record
        raise PlanError(
            f"{self.path}, {where}, is damaged ({problem}); delete that line and run the same command again"
        )
