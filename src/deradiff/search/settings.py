"""The question and the budget of a search."""

from collections.abc import Iterable

from pydantic import Field

from deradiff.analysis.criteria import Criteria
from deradiff.validation import ValidatedModel

POINTS = 33  # lams of the grid


class Settings(ValidatedModel):
    """The question of a search.

    Attributes:
        criteria: the question.
        max_lam: the largest lam looked at, above 0; the smallest is 0.
        interval_width: stop where the interval of lam (`deradiff.search.search.Estimate`) is no wider.
        max_images: how many it may sample; None for as many as there are prompts, seeds and lams near the answer.

    Raises:
        ConfigError: names each setting that is wrong, what was given and what is expected.
    """

    criteria: Criteria
    max_lam: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    interval_width: float = Field(default=0.1, gt=0)
    max_images: int | None = Field(default=None, ge=1)

    @property
    def grid(self) -> tuple[float, ...]:
        """The candidate lams."""
        return make_grid(self.max_lam)


def make_grid(max_lam: float, sampled: Iterable[float] = ()) -> tuple[float, ...]:
    """`POINTS` lams from 0 to the largest, evenly spaced, and those sampled already that lie between."""
    even = {round(max_lam * step / (POINTS - 1), 10) for step in range(POINTS)}
    return tuple(sorted(even | {lam for lam in sampled if 0 <= lam <= max_lam}))
