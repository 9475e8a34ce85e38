"""A vote: which of two images, of the same prompt and noise at two lams, a person prefers."""

from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, field_validator, model_validator

from deradiff.validation import Seed, ValidatedModel

VOTES = "votes"  # what criteria call them; no reward may have that name
Outcome = Literal["left", "right", "tie"]
Lam = Annotated[float, Field(allow_inf_nan=False)]
Rater = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class Vote(ValidatedModel):
    """One judgement.

    Attributes:
        prompt: of both images.
        seed: of both: they start from the same noise.
        guidance: of both; None is the pipeline's default.
        left: lam of the image on the left.
        right: lam of the image on the right, another one.
        outcome: the side that is better, or ``tie``.
        rater: who judged, a name of at most 100 characters.
        time: when, in UTC.

    Raises:
        ConfigError: names what is wrong, what was given and what is expected.
    """

    prompt: str = Field(min_length=1)
    seed: Seed
    guidance: Annotated[float, Field(allow_inf_nan=False)] | None = None
    left: Lam
    right: Lam
    outcome: Outcome
    rater: Rater
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    @field_validator("left", "right")
    @classmethod
    def _no_negative_zero(cls, lam: float) -> float:
        return lam + 0.0  # -0.0 is 0.0, as in cells

    @field_validator("time")
    @classmethod
    def _in_utc(cls, time: datetime) -> datetime:
        return time.astimezone(timezone.utc)

    @model_validator(mode="after")
    def _two_lams(self) -> "Vote":
        if self.left == self.right:
            raise ValueError(f"both images are at lam = {self.left:g}; a vote compares two lams")
        return self

    @property
    def lams(self) -> tuple[float, float]:
        """Both lams, the smaller first."""
        return min(self.left, self.right), max(self.left, self.right)

    @property
    def sign(self) -> int:
        """1 where the larger lam is better, -1 where the smaller is, 0 for a tie."""
        if self.outcome == "tie":
            return 0
        return 1 if (self.outcome == "right") == (self.right > self.left) else -1
